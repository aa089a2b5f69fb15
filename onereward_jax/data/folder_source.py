"""Triplets from a user's folder: images, masks and `metadata.jsonl`, see `metadata`."""

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

_EXTENSIONS = (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The folder's triplets, each cropped and resized to the nearest bucket.

    The constructor reads the headers of images; `example` decodes them.

    Attributes:
      folder: has `metadata.jsonl`.
      image_size, aspect_ratios: see `bucket_sizes`.
      small_pictures: "upscale" images smaller than their bucket, or "refuse" their rows.
      sizes: sizes of the buckets.
      rows: the valid rows, each with its split.
      errors: line number -> error of an invalid row.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: as `bucket_sizes`; the metadata is not UTF-8 or has no rows; or a split is empty.
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
        if not errors:  # with errors, the source is refused anyway
            rows = split_rows(self.folder, rows)
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "errors", errors)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The split of each row."""
        return tuple(row.split or "train" for row in self.rows)

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Raises ValueError listing all bad rows, if any, with line number and reason.

        Args:
          errors: additional errors, by index into `rows`.
        """
        found = {self.rows[place].line: error for place, error in errors.items()}
        refuse_rows(self.folder, {**self.errors, **found})

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, in line order, including duplicates."""
        return (self.example(place) for place, one in enumerate(self.splits) if one == split)

    def notes(self, repeated: Mapping[int, int]) -> list[str]:
        """Messages to the user about the rows.

        Args:
          repeated: index of a duplicate row -> index of the row with the same triplet.
        """
        path, notes = self.folder / METADATA, []
        if repeated:
            lines = {self.rows[row].line: self.rows[first].line for row, first in repeated.items()}
            pairs = [f"{line} (as {lines[line]})" for line in sorted(lines)]
            listing = ", ".join(first_of(pairs))
            notes.append(f"{path}: duplicate triplets skipped: line {listing}")
        if small := small_rows(self.rows, self.sizes):
            first = min(small)
            notes.append(
                f"{path}: {len(small)} of {len(self.rows)} images are upscaled, the first in "
                f'line {first}: {small[first]} (config.data.small_pictures = "refuse" refuses them)'
            )
        return notes

    def example(self, row: int) -> Example:
        """Reads, crops and resizes the images of `rows[row]`. Raises RowError."""
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
        (height, width), window = _crop(mask, self.sizes)
        pixels = {
            name: np.asarray(picture.resize((width, height), Image.LANCZOS, box=window))
            for name, picture in pictures.items()
        }
        edited = pixels["mask"] >= 128
        if edited.all() or not edited.any():
            part = "all" if edited.all() else "nothing"
            shape = "a square" if width == height else f"{width}:{height}"
            raise RowError(f"mask {row.mask} covers {part} of the image once cropped to {shape}")
        if row.target is None:
            after = np.zeros_like(pixels["image"])
        else:
            # Resizing blurs across the mask's edge, but outside the mask the target is the image.
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
            kind="scene" if row.task in _EXTENSIONS else "object",
            label="",
            box=bounding_box(edited),
            photo=row.image,
            files=files,
        )

    def _read(self, name: str, mode: str) -> tuple[Image.Image, Image.Image]:
        """An image, upright and converted to `mode`, and as stored."""
        try:
            with open_row_picture(self.folder, name) as picture:
                upright = ImageOps.exif_transpose(picture)
                return upright if upright.mode == mode else upright.convert(mode), picture
        except RowError:
            raise
        except UNREADABLE as error:
            raise RowError(f"{name} cannot be read: {error}") from error

    def _own_bytes(self, name: str, other: bytes) -> bytes:
        """The original file without metadata, to avoid compressing it a second time."""
        try:
            return without_metadata((self.folder / name).read_bytes())
        except ValueError:  # decoders are more tolerant
            return other


def mask_once_cropped(mask: Image.Image, sizes: Sequence[Size]) -> Bool[np.ndarray, "h w"]:
    """The mask of an image, mode L, cropped and resized to its bucket as `FolderSource` does.

    Raises:
      RowError: the mask is empty.
    """
    (height, width), window = _crop(mask, sizes)
    return np.asarray(mask.resize((width, height), Image.LANCZOS, box=window)) >= 128


def is_small(size: tuple[int, int], sizes: Sequence[Size]) -> bool:
    """Whether an image of this width and height must be upscaled to its bucket."""
    height, width = nearest_bucket(size[::-1], sizes)
    columns, lines = _window_size(size, width / height)
    return columns < width or lines < height


def small_rows(rows: Iterable[Row], sizes: Sequence[Size]) -> dict[int, RowError]:
    """Line number -> error of each row whose image is smaller than its bucket.

    Args:
      rows: rows with `size`.
      sizes: sizes of the buckets.
    """
    found = {}
    for row in rows:
        if is_small(row.size, sizes):
            height, width = nearest_bucket(row.size[::-1], sizes)
            found[row.line] = RowError(
                f"image {row.image} is {by(row.size)} pixels, smaller than {width}x{height}"
            )
    return found


def _is_as_stored(picture: Image.Image, size: tuple[int, int]) -> bool:
    """Whether a file is an RGB JPEG of this width and height that needs no rotation."""
    return (
        picture.format == "JPEG"
        and picture.mode == "RGB"
        and picture.size == size
        and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    )


def _crop(mask: Image.Image, sizes: Sequence[Size]) -> tuple[Size, tuple[int, int, int, int]]:
    """The bucket of an image, and its window that becomes the bucket. Raises RowError."""
    height, width = nearest_bucket(mask.size[::-1], sizes)
    return (height, width), _window_around_mask(np.asarray(mask) >= 128, width / height)


def _window_size(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """Width and height of the largest window with aspect ratio `ratio`."""
    width, height = size
    return min(width, round(height * ratio)), min(height, round(width / ratio))


def _window_around_mask(edited: Bool[np.ndarray, "h w"], ratio: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest window, centred on the mask as far as possible.

    Its width is `ratio` times its height. Raises RowError if the mask is empty.
    """
    if not edited.any():
        raise RowError("the mask is empty")
    height, width = edited.shape
    columns, rows = _window_size((width, height), ratio)
    y0, x0, y1, x1 = bounding_box(edited)
    top = min(max((y0 + y1 - rows) // 2, 0), height - rows)
    left = min(max((x0 + x1 - columns) // 2, 0), width - columns)
    return left, top, left + columns, top + rows
