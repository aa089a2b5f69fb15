"""The rows of a data set, one per triplet, validated without decoding images.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}

The fields are explained in `row_columns`, the files that rows are read from in `row_files`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from onereward_jax.common.listing import first_of, listed
from onereward_jax.data.example import SPLITS, RowError, Split
from onereward_jax.data.picture_paths import check_inside
from onereward_jax.data.row_columns import PAD, PICTURES, named_fields
from onereward_jax.data.row_sources import Place, Record, RowPictures, RowSource, open_rows
from onereward_jax.tasks import FIXED_PROMPTS, Task, task_named


@dataclasses.dataclass(frozen=True)
class Row:
    """A validated row.

    Attributes:
      place: where it is.
      image, mask: names in `pictures`; the mask is "" if the row has `pad` instead.
      prompt: the row's prompt, or the fixed one of the task.
      task: the editing task.
      target: name of the ground truth; None if there is none.
      split: the row's split; None if not stated.
      pad: "left,top,right,bottom" pixels to extend by; None in training.
      pictures: opens them.
      size: width and height of the upright image; None if files were not read.
    """

    place: Place
    image: str
    mask: str
    prompt: str
    task: Task
    target: str | None
    split: Split | None
    pad: str | None
    pictures: RowPictures = dataclasses.field(repr=False, compare=False)
    size: tuple[int, int] | None = None

    @property
    def line(self) -> int:
        """Its number in a single file of lines; otherwise its place among all rows, from 1."""
        return self.place.number

    def names(self) -> dict[str, str]:
        """Field -> name, of its pictures."""
        found = {"image": self.image, "mask": self.mask, "target": self.target}
        return {field: name for field, name in found.items() if name}


@dataclasses.dataclass(frozen=True)
class Scanned:
    """The rows of a data set.

    Attributes:
      title: what they are called in messages.
      rows: the valid ones, in order.
      errors: those of the others.
      notes: what the user should know of all of them.
    """

    title: str
    rows: tuple[Row, ...]
    errors: dict[Place, RowError]
    notes: tuple[str, ...] = ()


def read_rows(
    path: str | pathlib.Path, *, files: bool = True, anywhere: bool = False
) -> tuple[Row, ...]:
    """The rows of a folder, a file or a pattern of files, in order.

    Args:
      path: see `row_files`.
      files: whether to read the image headers, to check that the files exist and have equal sizes.
      anywhere: paths may lead out of the folder.

    Raises:
      FileNotFoundError, ValueError, ModuleNotFoundError: as `open_rows`; or rows are bad (all are
        counted and the first listed, with place and reason).
    """
    found = scan_rows(open_rows(path), files=files, anywhere=anywhere)
    refuse_rows(found.title, found.errors)
    return found.rows


def scan_rows(
    source: RowSource, *, files: bool = True, anywhere: bool = False, editing: bool = False
) -> Scanned:
    """Like `read_rows`, but returns the errors of bad rows instead of raising.

    Args:
      source: the records.
      files, anywhere: as in `read_rows`.
      editing: the rows are for the command `edit`: `pad` may replace the mask, the mask may have
        another size than the image if its aspect ratio is the same, and targets are not read.
    """
    rows: list[Row] = []
    errors: dict[Place, RowError] = {}
    ignored: dict[str, int] = {}
    without_task = 0
    for record in source.records:
        try:
            row, others, has_task = _parse(record, source.pictures, anywhere, editing)
        except RowError as error:
            errors[record.place] = error
            continue
        rows.append(row)
        without_task += not has_task
        for name in others:
            ignored[name] = ignored.get(name, 0) + 1
    if files:
        fields = ("image", "mask") if editing else PICTURES
        sizes = _stored_sizes(rows, fields)
        for place, row in enumerate(rows):
            try:
                size = _size(row, fields, sizes, same=not editing)
                rows[place] = dataclasses.replace(row, size=size)
            except RowError as error:
                errors[row.place] = error
        rows = [row for row in rows if row.place not in errors]
    notes = []
    if ignored:
        notes.append(f"columns that are not read: {', '.join(first_of(sorted(ignored)))}")
    if without_task and not editing:
        notes.append(f"{without_task} of {len(source.records)} rows name no task: they are fill")
    notes = tuple(f"{source.title}: {note}" for note in notes)
    return Scanned(source.title, tuple(rows), dict(sorted(errors.items())), notes)


def refuse_rows(title: str | pathlib.Path, errors: Mapping[Place, RowError]) -> None:
    """Raises ValueError with `bad_rows_message`, if there are errors."""
    if errors:
        raise ValueError(bad_rows_message(title, errors))


def bad_rows_message(title: str | pathlib.Path, errors: Mapping[Place, RowError]) -> str:
    """The number of bad rows, and the first of them with place and reason."""
    lines = [f"{place}: {errors[place]}" for place in sorted(errors)]
    return f"{title}: {len(errors)} bad rows" + listed(lines)


def _parse(
    record: Record, pictures: RowPictures, anywhere: bool, editing: bool
) -> tuple[Row, list[str], bool]:
    """(row, columns that are not read, whether it names its task). Raises RowError."""
    if isinstance(record.fields, RowError):
        raise record.fields
    fields, others = named_fields(record.fields, has_others=record.has_others, pads=editing)
    for name in PICTURES:
        if name in fields and not pictures.is_archived(fields[name]):
            allow = "--paths=anywhere" if editing else "config.data.paths=anywhere"
            check_inside(name, fields[name], anywhere=anywhere, allow=allow)
    if "image" not in fields:
        raise RowError("image is missing")
    prompt = fields.get("prompt", "")
    try:
        task = task_named(fields.get("task", Task.FILL), prompt)
    except ValueError as error:
        raise RowError(str(error)) from None
    _check_mask(fields, task, editing)
    prompt = prompt or FIXED_PROMPTS.get(task)
    if prompt is None:
        stated = "" if "task" in fields else ", which a row without a task has,"
        raise RowError(f"prompt is missing; the task {task.value}{stated} needs one")
    split = fields.get("split", record.split)
    if split not in (*SPLITS, None):
        raise RowError(f'split must be "train" or "test", found {split!r}')
    row = Row(
        record.place,
        fields["image"],
        fields.get("mask", ""),
        prompt,
        task,
        fields.get("target"),
        split,
        fields.get(PAD),
        pictures,
    )
    return row, others, "task" in fields


def _check_mask(fields: Mapping[str, str], task: Task, editing: bool) -> None:
    """Raises RowError unless there is either a mask, or a pad where it is allowed."""
    extends = task in (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT)
    if PAD in fields and not extends:
        raise RowError(f"pad is for the task extend, not for {task.value}")
    if PAD in fields and "mask" in fields:
        raise RowError("pad creates the mask: give either pad or mask, not both")
    if PAD not in fields and "mask" not in fields:
        or_pad = " or pad" if editing and extends else ""
        raise RowError(f"mask is missing; the task {task.value} needs a mask{or_pad}")


def _size(
    row: Row,
    fields: Sequence[str],
    sizes: Mapping[str, tuple[int, int] | RowError],
    *,
    same: bool,
) -> tuple[int, int]:
    """Size of the row's image. Raises RowError if files are missing or sizes differ."""
    found = {field: sizes[name] for field, name in row.names().items() if field in fields}
    for size in found.values():
        if isinstance(size, RowError):
            raise size
    image = found["image"]
    for field, size in found.items():
        if size != image and (same or not _alike(size, image)):
            raise RowError(f"{field} is {by(size)} pixels, image {by(image)}")
    return image


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same aspect ratio, up to rounding to a pixel."""
    (width, height), (across, down) = size, other
    return abs(width * down / height - across) <= 1 or abs(height * across / width - down) <= 1


def _stored_sizes(
    rows: Iterable[Row], fields: Sequence[str]
) -> dict[str, tuple[int, int] | RowError]:
    """Upright width and height of the pictures of the rows, from their headers; or the error."""
    # In the order of the rows, in which pictures inside files are read best.
    of_name = {
        name: row.pictures for row in rows for field, name in row.names().items() if field in fields
    }

    def size(name: str, pictures: RowPictures) -> tuple[int, int] | RowError:
        try:
            return pictures.size(name)
        except RowError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(of_name, threads.map(size, of_name, of_name.values())))


def by(size: tuple[int, int]) -> str:
    """Formats a size as "WxH"."""
    return f"{size[0]}x{size[1]}"
