"""Triplets from a user's folder: pictures, masks and `metadata.jsonl`, see `metadata`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool
from PIL import ExifTags, Image, ImageOps

from onereward_jax.common.listing import first_of
from onereward_jax.data.aspect_buckets import Size, bucket_sizes, nearest_bucket
from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.example import Example, RowError, Split
from onereward_jax.data.jpeg import encode_jpeg, tables_of, without_metadata
from onereward_jax.data.metadata import (
    METADATA,
    UNREADABLE,
    Row,
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

    Heads of pictures are read when the source is made; `example` reads the pictures themselves.

    Attributes:
      folder: with `metadata.jsonl`.
      image_size, aspect_ratios: see `bucket_sizes`.
      small_pictures: "upscale" those that have fewer pixels than training, or "refuse" their rows.
      sizes: of the pictures.
      rows: each with its split.
      errors: of rows that cannot be used, by their line.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: `bucket_sizes` says why not, the metadata is not UTF-8 or has no rows, or a split
        is empty.
    """

    folder: pathlib.Path
    image_size: int
    aspect_ratios: tuple[float, ...] = (1.0,)
    small_pictures: Literal["upscale", "refuse"] = "upscale"
    sizes: tuple[Size, ...] = dataclasses.field(init=False)
    rows: tuple[Row, ...] = dataclasses.field(init=False)
    errors: Mapping[int, RowError] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        sizes = bucket_sizes(self.image_size, self.aspect_ratios)
        rows, errors = scan_rows(self.folder)
        if self.small_pictures == "refuse":
            errors |= small_rows(rows, sizes)
            rows = tuple(row for row in rows if row.line not in errors)
        if not errors:  # otherwise nobody needs the splits: the rows will be others
            rows = split_rows(self.folder, rows)
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "errors", errors)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The split of each row."""
        return tuple(row.split or "train" for row in self.rows)

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Raises ValueError with all bad rows, each with its line number and the reason.

        Args:
          errors: of further rows, by their place in `rows`.
        """
        found = {self.rows[place].line: error for place, error in errors.items()}
        refuse_rows(self.folder, {**self.errors, **found})

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, in the order of their lines, repeated ones too."""
        return (self.example(place) for place, one in enumerate(self.splits) if one == split)

    def notes(self, repeated: Mapping[int, int]) -> list[str]:
        """What the user should know of the rows, a sentence each.

        Args:
          repeated: rows that are left out -> those that are the same triplet, by their places.
        """
        path, notes = self.folder / METADATA, []
        if repeated:
            lines = {self.rows[row].line: self.rows[first].line for row, first in repeated.items()}
            pairs = [f"{line} (as {lines[line]})" for line in sorted(lines)]
            listing = ", ".join(first_of(pairs))
            notes.append(f"{path}: left out, because the triplet is there already: line {listing}")
        if small := small_rows(self.rows, self.sizes):
            first = min(small)
            notes.append(
                f"{path}: {len(small)} of {len(self.rows)} pictures are enlarged, the first in "
                f'line {first}: {small[first]} (config.data.small_pictures = "refuse" refuses them)'
            )
        return notes

    def example(self, row: int) -> Example:
        """Reads, crops and scales the pictures of `rows[row]`. Raises RowError."""
        row = self.rows[row]
        image, whole = self._read(row.image, "RGB")
        mask, _ = self._read(row.mask, "L")
        pictures, tables = {"image": image, "mask": mask}, {"image": tables_of(whole)}
        if row.target is not None:
            pictures["target"], stored = self._read(row.target, "RGB")
            tables["target"] = tables_of(stored)
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
        if row.target is None:
            after = np.zeros_like(pixels["image"])
        else:
            # Scaling blurs across the mask's edge, but outside the mask an edit changes nothing.
            after = np.where(edited[..., None], pixels["target"], pixels["image"])
        stored = {"image": pixels["image"], "target": after}
        files = {name: encode_jpeg(stored[name], found) for name, found in tables.items() if found}
        if "image" in files and _is_as_stored(whole, (width, height)):
            files["image"] = self._own_bytes(row.image, files["image"])
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
            files=files,
        )

    def _read(self, name: str, mode: str) -> tuple[Image.Image, Image.Image]:
        """A picture upright and in a mode, and as it is stored."""
        try:
            with open_row_picture(self.folder, name) as picture:
                upright = ImageOps.exif_transpose(picture)
                return upright if upright.mode == mode else upright.convert(mode), picture
        except RowError:
            raise
        except UNREADABLE as error:
            raise RowError(f"{name} cannot be read: {error}") from error

    def _own_bytes(self, name: str, other: bytes) -> bytes:
        """The file's own bytes without metadata, which a second compression would spoil."""
        try:
            return without_metadata((self.folder / name).read_bytes())
        except ValueError:  # decoders forgive more
            return other


def small_rows(rows: Iterable[Row], sizes: Sequence[Size]) -> dict[int, RowError]:
    """Rows whose pictures have to be enlarged, by their line.

    Args:
      rows: whose `size` is known.
      sizes: that pictures come in.
    """
    found = {}
    for row in rows:
        height, width = nearest_bucket(row.size[::-1], sizes)
        columns, lines = _window_size(row.size, width / height)
        if columns < width or lines < height:
            found[row.line] = RowError(
                f"image {row.image} is {by(row.size)} pixels, less than the {width}x{height} of "
                "training"
            )
    return found


def _is_as_stored(picture: Image.Image, size: tuple[int, int]) -> bool:
    """Whether a file is a JPEG of this width and height, of whose pixels nothing is changed."""
    return (
        picture.format == "JPEG"
        and picture.mode == "RGB"
        and picture.size == size
        and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    )


def _window_size(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """Width and height of the largest window whose width is `ratio` times its height."""
    width, height = size
    return min(width, round(height * ratio)), min(height, round(width / ratio))


def _window_around_mask(edited: Bool[np.ndarray, "h w"], ratio: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest window, as central to the mask as possible.

    Its width is `ratio` times its height.
    """
    if not edited.any():
        raise RowError("the mask is empty")
    height, width = edited.shape
    columns, rows = _window_size((width, height), ratio)
    y0, x0, y1, x1 = bounding_box(edited)
    top = min(max((y0 + y1 - rows) // 2, 0), height - rows)
    left = min(max((x0 + x1 - columns) // 2, 0), width - columns)
    return left, top, left + columns, top + rows
