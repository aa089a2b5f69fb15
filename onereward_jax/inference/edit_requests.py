"""Edit requests: one image, or the rows of a folder, of a file of rows or of tars.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}
    {"image": "b.jpg", "pad": "64,0,64,0", "task": "extend"}

The fields are those of `data.row_columns`; `target` and `split` are ignored.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib

from PIL import Image

from onereward_jax.data.example import RowError
from onereward_jax.data.metadata import Place, Row, scan_rows
from onereward_jax.data.row_files import is_rows
from onereward_jax.data.row_sources import open_rows
from onereward_jax.inference.canvas import Padding, canvas_size, extended
from onereward_jax.inference.picture_io import check_shapes
from onereward_jax.parallel.progress import announce
from onereward_jax.pictures import Photograph, PictureSource, read_mask, read_photograph
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.tasks import FIXED_PROMPTS, Task, task_named

__all__ = ["EditRow", "Request", "is_rows", "read_edit_rows", "read_request"]


@dataclasses.dataclass(frozen=True)
class Request:
    """One edit.

    Attributes:
      photograph: the source image; with `pad`, the extended canvas.
      mask: mode L, white: edit here.
      prompt: the prompt; by default the task's fixed one.
      task: the task.
      name: of the image, without suffix.
    """

    photograph: Photograph
    mask: Image.Image
    prompt: str
    task: Task
    name: str

    @property
    def image(self) -> Image.Image:
        """The source image in sRGB."""
        return self.photograph.srgb()


@dataclasses.dataclass(frozen=True)
class EditRow:
    """A row that can be edited, before its pictures are decoded.

    Attributes:
      row: the row.
      size: width and height of the upright image; with `pad`, of the canvas.
      mask_indices: as in `read_request`.
    """

    row: Row
    size: tuple[int, int]
    mask_indices: tuple[int, ...] = ()

    @property
    def place(self) -> Place:
        """Where the row is."""
        return self.row.place

    @property
    def name(self) -> str:
        """Path of the image in the folder, without suffix.

        Of a sample in a tar its key; of a picture in a Parquet file the file's name and the row.
        """
        path = pathlib.PurePosixPath(self.row.image)
        if self.row.pictures.is_archived(self.row.image):
            _, tar, key = path.parent.as_posix().partition(".tar/")
            return key if tar else f"{path.parents[1].stem}-{path.parent.name}"
        parts = [part for part in path.with_suffix("").parts if part != ".."]
        return "/".join(parts).lstrip("/")

    @property
    def prompt(self) -> str:
        """The prompt."""
        return self.row.prompt

    @property
    def task(self) -> Task:
        """The task."""
        return self.row.task

    @property
    def pad(self) -> str | None:
        """Pixels to extend by, as in `Padding.parse`; None with a mask."""
        return self.row.pad

    @property
    def files(self) -> tuple[pathlib.Path | bytes, ...]:
        """Image and mask as stored: their paths, or their content. Raises RowError."""
        names = (self.row.image, self.row.mask)
        return tuple(self.row.pictures.open(name) for name in names if name)

    def open(self) -> Request:
        """Decodes the pictures.

        Raises:
          ValueError, FileNotFoundError: as `read_request`.
        """
        row = self.row
        return read_request(
            row.pictures.open(row.image),
            row.pictures.open(row.mask) if row.mask else None,
            row.prompt,
            row.task,
            row.pad,
            name=row.image,
            mask_name=row.mask,
            mask_indices=self.mask_indices,
        )


def read_request(
    image: PictureSource,
    mask: PictureSource | None,
    prompt: str,
    task: str,
    pad: str | None,
    *,
    name: str = "",
    mask_name: str = "",
    mask_indices: tuple[int, ...] = (),
) -> Request:
    """Opens and checks the pictures of one edit.

    Args:
      image: the source image.
      mask: white = edit here; None with `pad`.
      prompt: "" for none.
      task: see `tasks.task_named`.
      pad: "left,top,right,bottom" pixels to extend by, or None.
      name, mask_name: names of the pictures in messages; "": their paths.
      mask_indices: values of the mask that mark the area; (): white does.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file is not a readable image, the prompt is not valid Unicode, the task is
        unknown, or mask, pad and prompt do not match the task.
    """
    check_prompt(prompt)
    kind = task_named(task, prompt)
    words = prompt or FIXED_PROMPTS.get(kind)
    if words is None:
        raise ValueError(f"the task {task} needs a prompt")
    if pad is not None and kind not in (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT):
        raise ValueError(f"pad is for the task extend, not for {task}")
    if pad is not None and mask is not None:
        raise ValueError("pad creates the mask: give either pad or mask, not both")
    if pad is None and mask is None:
        raise ValueError(f"the task {task} needs a mask" + (" or pad" if "extend" in kind else ""))
    photograph = read_photograph(image, name)
    if pad is not None:
        canvas, covered = extended(photograph.pixels, Padding.parse(pad))
        photograph = dataclasses.replace(photograph, pixels=canvas)
    else:
        covered = read_mask(mask, mask_name, indices=mask_indices)
        check_shapes(photograph.pixels.size, covered.size)
    stem = pathlib.PurePath(name or (image if isinstance(image, (str, pathlib.Path)) else "")).stem
    return Request(photograph, covered, words, kind, stem)


def read_edit_rows(
    path: str | pathlib.Path, *, anywhere: bool = False, mask_indices: tuple[int, ...] = ()
) -> tuple[list[EditRow], dict[Place, RowError]]:
    """The rows of a folder, a file or a pattern of files, in order, and the errors of bad ones.

    Headers of images are read, and masks decoded one by one.

    Args:
      path: see `data.row_files`.
      anywhere: paths of pictures may lead out of the folder.
      mask_indices: as in `read_request`.

    Raises:
      FileNotFoundError, ValueError, ModuleNotFoundError: as `open_rows`.
    """
    found = scan_rows(open_rows(path), anywhere=anywhere, editing=True)
    for note in found.notes:
        announce(note)

    def checked(row: Row) -> EditRow | RowError:
        try:
            return _checked(row, mask_indices)
        except (ValueError, OSError) as error:
            return error if isinstance(error, RowError) else RowError(str(error))

    rows, errors = [], dict(found.errors)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for row, result in zip(found.rows, threads.map(checked, found.rows)):
            if isinstance(result, RowError):
                errors[row.place] = result
            else:
                rows.append(result)
    return rows, dict(sorted(errors.items()))


def _checked(row: Row, mask_indices: tuple[int, ...]) -> EditRow:
    """Raises ValueError, FileNotFoundError if the row cannot be edited."""
    check_prompt(row.prompt)
    if row.pad is not None:
        return EditRow(row, canvas_size(row.size, Padding.parse(row.pad)), mask_indices)
    mask = read_mask(row.pictures.open(row.mask), row.mask, indices=mask_indices)
    check_shapes(row.size, mask.size)
    return EditRow(row, row.size, mask_indices)
