"""Triplets from a user's folder: pictures, masks and `metadata.jsonl`, see `metadata`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.buckets import Size, bucket_sizes, nearest_bucket
from onereward_jax.data.example import Example, Split
from onereward_jax.data.metadata import (
    LISTED,
    METADATA,
    Row,
    RowError,
    by,
    open_row_picture,
    refuse_rows,
    scan_rows,
)
from onereward_jax.data.splits import split_rows
from onereward_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The folder's triplets, each cropped and scaled to the nearest of a few sizes.

    Every row and picture is read and checked when the source is made.

    Attributes:
      folder: with `metadata.jsonl`.
      image_size, aspect_ratios: see `bucket_sizes`.
      sizes: of the pictures.
      rows: each with its split.
      repeated: line of a row that is left out -> line of the row that is the same triplet.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: `bucket_sizes` says why not, the metadata is not UTF-8 or has no rows, a split is
        empty, or rows are bad: all of them are reported at once, each with its line number and the
        reason.
    """

    folder: pathlib.Path
    image_size: int
    aspect_ratios: tuple[float, ...] = (1.0,)
    sizes: tuple[Size, ...] = dataclasses.field(init=False)
    rows: tuple[Row, ...] = dataclasses.field(init=False)
    repeated: dict[int, int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", bucket_sizes(self.image_size, self.aspect_ratios))
        rows, repeated = self._checked_rows()
        object.__setattr__(self, "repeated", repeated)
        object.__setattr__(self, "rows", split_rows(self.folder, rows))

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, in the order of their lines."""
        return (self._example(row) for row in self.rows if row.split == split)

    def notes(self) -> list[str]:
        """What the user should know of the rows, a sentence each."""
        if not self.repeated:
            return []
        pairs = [f"{line} (as {first})" for line, first in self.repeated.items()]
        more = [f"and {len(pairs) - LISTED} more"] if len(pairs) > LISTED else []
        listing = ", ".join(pairs[:LISTED] + more)
        return [
            f"{self.folder / METADATA}: left out, because the triplet is there already: line "
            f"{listing}"
        ]

    def _checked_rows(self) -> tuple[list[Row], dict[int, int]]:
        """Rows that differ, and the lines of the others; see `repeated`."""
        found, errors = scan_rows(self.folder)
        rows, repeated, lines = [], {}, {}
        for row in found:
            try:
                name = self._example(row).id
            except RowError as error:
                errors[row.line] = error
                continue
            if name in lines:
                repeated[row.line] = lines[name]
            else:
                lines[name] = row.line
                rows.append(row)
        refuse_rows(self.folder, errors)
        return rows, repeated

    def _example(self, row: Row) -> Example:
        """Reads, crops and scales the pictures of a row. Raises RowError."""
        image = self._read(row.image, "RGB")
        mask = self._read(row.mask, "L")
        pictures = {"image": image, "mask": mask}
        if row.target is not None:
            pictures["target"] = self._read(row.target, "RGB")
        for name, picture in pictures.items():
            if picture.size != image.size:
                raise RowError(f"{name} is {by(picture.size)} pixels, image {by(image.size)}")
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
            with open_row_picture(self.folder, name) as picture:
                return ImageOps.exif_transpose(picture).convert(mode)
        except RowError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise RowError(f"{name} cannot be read: {error}") from error


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
