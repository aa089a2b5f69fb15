"""The rows of a folder's `metadata.jsonl`, one per triplet, validated without decoding images.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}

image    path of the source image; paths are relative to the folder and must stay inside it
mask     an image of the same size; white: edit here
task     fill, extend, remove, or a value of `tasks.Task`
prompt   the prompt; optional for tasks with a fixed prompt
target   optional: ground truth of the edit, of the same size
split    optional: "train" or "test"; by default drawn from a hash of the image, see `splits`

A null field counts as missing. Only a line feed ends a line.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import ExifTags, Image

from onereward_jax.common.listing import listed
from onereward_jax.data.example import RowError, Split
from onereward_jax.data.inside_folder import check_inside
from onereward_jax.data.metadata_lines import METADATA, metadata_lines
from onereward_jax.tasks import FIXED_PROMPTS, Task, task_named

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Exceptions that Pillow raises for unreadable files."""

_FIELDS = ("image", "mask", "prompt", "task", "target", "split")


@dataclasses.dataclass(frozen=True)
class Row:
    """A validated line of the metadata.

    Attributes:
      line: line number, from 1.
      image, mask: paths relative to the folder.
      prompt: the row's prompt, or the fixed one of the task.
      task: the editing task.
      target: path of the ground truth; None if there is none.
      split: the row's split; None if not stated.
      size: width and height of the upright image; None if files were not read.
    """

    line: int
    image: str
    mask: str
    prompt: str
    task: Task
    target: str | None
    split: Split | None
    size: tuple[int, int] | None = None


def read_rows(folder: pathlib.Path, *, files: bool = True) -> tuple[Row, ...]:
    """The rows of a folder, in line order.

    Args:
      folder: has the metadata.
      files: whether to read the image headers, to check that the files exist and have equal sizes.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: it is not UTF-8 or has no rows, or rows are bad (all are listed, with line number
        and reason).
    """
    rows, errors = scan_rows(folder, files=files)
    refuse_rows(folder, errors)
    return rows


def scan_rows(
    folder: pathlib.Path, *, files: bool = True
) -> tuple[tuple[Row, ...], dict[int, RowError]]:
    """Like `read_rows`, but returns the errors of bad rows, by line number, instead of raising."""
    path = folder / METADATA
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is a folder without {METADATA}")
    rows, errors = [], {}
    for number, line in enumerate(metadata_lines(path), 1):
        if line.strip():
            try:
                rows.append(_parse(number, line))
            except RowError as error:
                errors[number] = error
    if not rows and not errors:
        raise ValueError(f"{path} has no rows")
    if files:
        sizes = _stored_sizes(folder, rows)
        for place, row in enumerate(rows):
            try:
                rows[place] = dataclasses.replace(row, size=_size(row, sizes))
            except RowError as error:
                errors[row.line] = error
        rows = [row for row in rows if row.line not in errors]
    return tuple(rows), errors


def refuse_rows(folder: pathlib.Path, errors: Mapping[int, RowError]) -> None:
    """Raises ValueError listing all bad rows, given by line number, if there are any."""
    if not errors:
        return
    lines = [f"line {number}: {errors[number]}" for number in sorted(errors)]
    raise ValueError(f"{folder / METADATA}: {len(errors)} bad rows" + listed(lines))


def _parse(number: int, line: str) -> Row:
    """Parses a row. Raises RowError."""
    try:
        found: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RowError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RowError("not a JSON object")
    if unknown := sorted(set(found) - set(_FIELDS)):
        raise RowError(f"unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    fields = {name: value for name, value in found.items() if value is not None}
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise RowError(f"{name} must be a non-empty string, found {value!r}")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RowError(f"{name} has a lone surrogate: {value!r}")
    for name in ("image", "mask", "task"):
        if name not in fields:
            raise RowError(f"{name} is missing")
    for name in ("image", "mask", "target"):
        if name in fields:
            check_inside(name, fields[name])
    try:
        task = task_named(fields["task"], fields.get("prompt", ""))
    except ValueError as error:
        raise RowError(str(error)) from None
    prompt = fields.get("prompt", FIXED_PROMPTS.get(task))
    if prompt is None:
        raise RowError(f"prompt is missing; the task {task.value} needs one")
    split = fields.get("split")
    if split not in ("train", "test", None):
        raise RowError(f'split must be "train" or "test", found {split!r}')
    return Row(number, fields["image"], fields["mask"], prompt, task, fields.get("target"), split)


def _size(row: Row, sizes: Mapping[str, tuple[int, int] | RowError]) -> tuple[int, int]:
    """Size of the row's image. Raises RowError if files are missing or sizes differ."""
    names = {"image": row.image, "mask": row.mask, "target": row.target}
    found = {field: sizes[name] for field, name in names.items() if name is not None}
    for size in found.values():
        if isinstance(size, RowError):
            raise size
    for field, size in found.items():
        if size != found["image"]:
            raise RowError(f"{field} is {by(size)} pixels, image {by(found['image'])}")
    return found["image"]


def _stored_sizes(
    folder: pathlib.Path, rows: Iterable[Row]
) -> dict[str, tuple[int, int] | RowError]:
    """Upright width and height of all files of the rows, from their headers; or the error."""
    names = sorted(
        {name for row in rows for name in (row.image, row.mask, row.target) if name is not None}
    )

    def size(name: str) -> tuple[int, int] | RowError:
        try:
            with open_row_picture(folder, name) as picture:
                turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
                return picture.size[::-1] if turned else picture.size
        except RowError as error:
            return error
        except UNREADABLE as error:
            return RowError(f"{name} cannot be read: {error}")

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(size, names)))


def open_row_picture(folder: pathlib.Path, name: str) -> Image.Image:
    """Opens an image of a row without decoding it. Raises RowError."""
    try:
        return Image.open(folder / name)
    except FileNotFoundError:
        raise RowError(f"there is no file {name}") from None
    except UNREADABLE as error:
        raise RowError(f"{name} cannot be read: {error}") from error


def by(size: tuple[int, int]) -> str:
    """Formats a size as "WxH"."""
    return f"{size[0]}x{size[1]}"
