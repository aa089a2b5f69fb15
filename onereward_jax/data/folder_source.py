"""Triplets from a user's folder: pictures, masks and `metadata.jsonl`, one row per triplet.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}

Paths are relative to the folder. White in the mask means: edit here. `task` is a value of
`tasks.Task`. Optional: `target`, the picture after a perfect edit; `split`, "train" or "test"
(without it, the rows of every tenth image are for testing); `prompt`, where the task fixes it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from onereward_jax.data.buckets import Size, bucket_sizes, nearest_bucket
from onereward_jax.data.example import Example
from onereward_jax.data.mini_world.masks import bounding_box
from onereward_jax.data.mini_world.photos import Split
from onereward_jax.tasks import FIXED_PROMPTS, Task

METADATA = "metadata.jsonl"
TEST_EVERY = 10
"""Where rows name no split, the first of every so many images goes to the test split."""

LISTED = 20
"""Bad rows named in an error message; the others are counted."""

_FIELDS = ("image", "mask", "prompt", "task", "target", "split")


class RowError(ValueError):
    """A row of the metadata, or a file it names, cannot be used."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A checked line of the metadata; `line` counts from 1."""

    line: int
    image: str
    mask: str
    prompt: str
    task: Task
    target: str | None
    split: Split


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The folder's triplets, each cropped and scaled to the nearest of a few sizes.

    Attributes:
      folder: with `metadata.jsonl`.
      image_size, aspect_ratios: see `bucket_sizes`.

    Every row and picture is read and checked when the source is made.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: `bucket_sizes` says why not, the metadata is not UTF-8, a split is empty, or
        rows are bad: all of them are reported at once, each with its line number and the reason.
    """

    folder: pathlib.Path
    image_size: int
    aspect_ratios: tuple[float, ...] = (1.0,)
    sizes: tuple[Size, ...] = dataclasses.field(init=False)
    rows: tuple[Row, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", bucket_sizes(self.image_size, self.aspect_ratios))
        object.__setattr__(self, "rows", self._checked_rows())

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, in the order of their lines."""
        return (self._example(row) for row in self.rows if row.split == split)

    def _checked_rows(self) -> tuple[Row, ...]:
        path = self.folder / METADATA
        rows, errors, images = [], [], {}
        for number, line in enumerate(metadata_lines(path), 1):
            if not line.strip():
                continue
            try:
                row = _parse(number, line, images)
                self._example(row)
            except RowError as error:
                errors.append(f"  line {number}: {error}")
            else:
                rows.append(row)
        if errors:
            more = [f"  and {len(errors) - LISTED} more"] if len(errors) > LISTED else []
            listing = "\n".join(errors[:LISTED] + more)
            raise ValueError(f"{path}: {len(errors)} bad rows\n{listing}")
        for split in ("train", "test"):
            if not any(row.split == split for row in rows):
                raise ValueError(f'{path}: no row for the split "{split}"; name it in "split"')
        return tuple(rows)

    def _example(self, row: Row) -> Example:
        """Reads, crops and scales the pictures of a row. Raises RowError."""
        image = self._read(row.image, "RGB")
        mask = self._read(row.mask, "L")
        pictures = {"image": image, "mask": mask}
        if row.target is not None:
            pictures["target"] = self._read(row.target, "RGB")
        for name, picture in pictures.items():
            if picture.size != image.size:
                raise RowError(f"{name} is {_by(picture.size)} pixels, image {_by(image.size)}")
        height, width = nearest_bucket(image.size[::-1], self.sizes)
        window = _window_around_mask(np.asarray(mask) >= 128, width / height)
        pixels = {
            name: np.asarray(picture.resize((width, height), Image.LANCZOS, box=window))
            for name, picture in pictures.items()
        }
        edited = pixels["mask"] >= 128
        if edited.all() or not edited.any():
            part = "all" if edited.all() else "nothing"
            shape = "a square" if width == height else f"{width}:{height}"
            raise RowError(f"mask {row.mask} covers {part} of the picture once cropped to {shape}")
        after = np.zeros_like(pixels["image"])
        if row.target is not None:
            # Scaling blurs across the mask's edge, but outside the mask an edit changes nothing.
            after = np.where(edited[..., None], pixels["target"], pixels["image"])
        return Example(
            image=pixels["image"],
            mask=edited.astype(np.uint8) * np.uint8(255),
            has_target=row.target is not None,
            target=after,
            background=after,
            prompt=row.prompt,
            task=row.task,
            kind="object" if row.task in (Task.FILL, Task.REMOVAL) else "scene",
            label="",
            box=bounding_box(edited),
            photo=row.image,
        )

    def _read(self, name: str, mode: str) -> Image.Image:
        try:
            with Image.open(self.folder / name) as picture:
                return ImageOps.exif_transpose(picture).convert(mode)
        except FileNotFoundError:
            raise RowError(f"there is no file {name}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise RowError(f"{name} cannot be read: {error}") from error


def metadata_lines(path: pathlib.Path) -> list[str]:
    """The lines of a `metadata.jsonl`; the mark that some editors begin UTF-8 with is dropped.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not UTF-8, naming the first line that is not.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error


def _parse(number: int, line: str, images: dict[str, int]) -> Row:
    """A row from its line. `images` numbers the images seen, to split by image. Raises RowError."""
    try:
        fields: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RowError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RowError("not a JSON object")
    if unknown := sorted(set(fields) - set(_FIELDS)):
        raise RowError(f"unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise RowError(f"{name} must be a text that is not empty, found {value!r}")
    for name in ("image", "mask", "task"):
        if name not in fields:
            raise RowError(f"{name} is missing")
    tasks = [task.value for task in Task]
    if fields["task"] not in tasks:
        raise RowError(f"task {fields['task']!r} is not one of {', '.join(tasks)}")
    task = Task(fields["task"])
    prompt = fields.get("prompt", FIXED_PROMPTS.get(task))
    if prompt is None:
        raise RowError(f"prompt is missing, which the task {task.value} needs")
    position = images.setdefault(fields["image"], len(images))
    split = fields.get("split", "test" if position % TEST_EVERY == 0 else "train")
    if split not in ("train", "test"):
        raise RowError(f'split must be "train" or "test", found {split!r}')
    return Row(number, fields["image"], fields["mask"], prompt, task, fields.get("target"), split)


def _window_around_mask(
    edited: Bool[np.ndarray, "h w"], ratio: float
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest window, as central to the mask as possible.

    Its width is `ratio` times its height.
    """
    if not edited.any():
        raise RowError("the mask is empty")
    height, width = edited.shape
    rows, columns = min(height, round(width / ratio)), min(width, round(height * ratio))
    y0, x0, y1, x1 = bounding_box(edited)
    top = min(max((y0 + y1 - rows) // 2, 0), height - rows)
    left = min(max((x0 + x1 - columns) // 2, 0), width - columns)
    return left, top, left + columns, top + rows


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
