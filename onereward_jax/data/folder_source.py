"""Triplets from a user's folder, or from other files of rows, see `metadata` and `row_files`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from absl import logging
from jaxtyping import Bool
from PIL import Image

from onereward_jax.common.listing import LISTED, first_of
from onereward_jax.data.aspect_buckets import Size, bucket_sizes, nearest_bucket
from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.example import Example, RowError, Split
from onereward_jax.data.jpeg import encode_jpeg, is_jpeg, tables_of, without_metadata
from onereward_jax.data.metadata import Place, Row, Scanned, by, refuse_rows, scan_rows
from onereward_jax.data.row_sources import open_rows
from onereward_jax.data.splits import split_rows
from onereward_jax.pictures import Photograph, mask_warning, read_mask, read_photograph
from onereward_jax.tasks import Task

_EXTENSIONS = (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The folder's triplets, each cropped and resized to the nearest bucket.

    The constructor reads the headers of images; `example` decodes them.

    Attributes:
      folder: the folder, file or pattern of files, see `row_files`.
      image_size, aspect_ratios: see `bucket_sizes`.
      small_pictures: "upscale" images smaller than their bucket, or "refuse" their rows.
      paths: "inside": paths of rows must stay in the folder; "anywhere": they may lead out.
      mask_indices: values of a mask that mark the area; (): white does.
      sizes: sizes of the buckets.
      rows: the valid rows, each with its split.
      errors: place -> error of an invalid row.
      found: all rows as they are in the files.

    Raises:
      FileNotFoundError, ModuleNotFoundError: as `open_rows`.
      ValueError: as `bucket_sizes` and `open_rows`; or a split is empty.
    """

    folder: pathlib.Path | str
    image_size: int
    aspect_ratios: tuple[float, ...] = (1.0,)
    small_pictures: Literal["upscale", "refuse"] = "upscale"
    paths: Literal["inside", "anywhere"] = "inside"
    mask_indices: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = dataclasses.field(init=False)
    rows: tuple[Row, ...] = dataclasses.field(init=False)
    errors: Mapping[Place, RowError] = dataclasses.field(init=False)
    found: Scanned = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = bucket_sizes(self.image_size, self.aspect_ratios)
        found = scan_rows(open_rows(self.folder), anywhere=self.paths == "anywhere")
        rows, errors = found.rows, dict(found.errors)
        if self.small_pictures == "refuse":
            errors |= small_rows(rows, sizes)
            rows = tuple(row for row in rows if row.place not in errors)
        if not errors:  # with errors, the source is refused anyway
            rows = split_rows(found.title, rows)
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "errors", errors)
        object.__setattr__(self, "found", found)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The split of each row."""
        return tuple(row.split or "train" for row in self.rows)

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Raises ValueError listing all bad rows, if any, with place and reason.

        Args:
          errors: additional errors, by index into `rows`.
        """
        found = {self.rows[index].place: error for index, error in errors.items()}
        refuse_rows(self.found.title, {**self.errors, **found})

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, in line order, including duplicates."""
        return (self.example(place) for place, one in enumerate(self.splits) if one == split)

    def notes(self, repeated: Mapping[int, int]) -> list[str]:
        """Messages to the user about the rows.

        Args:
          repeated: index of a duplicate row -> index of the row with the same triplet.
        """
        notes = list(self.found.notes)
        if repeated:
            pairs = [
                f"{self.rows[row].place} (as {self.rows[repeated[row]].line})"
                for row in sorted(repeated)
            ]
            listing = ", ".join(first_of(pairs)).replace(", line ", ", ")
            notes.append(f"{self.found.title}: duplicate triplets skipped: {listing}")
        if small := small_rows(self.rows, self.sizes):
            first = min(small)
            notes.append(
                f"{self.found.title}: {len(small)} of {len(self.rows)} images are upscaled, the "
                f"first in {first}: {small[first]} (config.data.small_pictures=refuse refuses them)"
            )
        return notes

    def example(self, row: int) -> Example:
        """Reads, crops and resizes the images of `rows[row]`. Raises RowError."""
        row = self.rows[row]
        photographs = {
            field: _photograph(row, name) for field, name in row.names().items() if field != "mask"
        }
        image, mask = photographs["image"].srgb(), _mask(row, self.mask_indices)
        if row.task not in _EXTENSIONS and (warning := mask_warning(mask)):
            logging.log_first_n(logging.WARNING, "%s: %s", LISTED, row.mask, warning)
        pictures = {"image": image, "mask": mask}
        if row.target is not None:
            pictures["target"] = photographs["target"].srgb()
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
        files = {
            field: encode_jpeg(stored[field], tables)
            for field, photograph in photographs.items()
            if (tables := tables_of(photograph))
        }
        if "image" in files and photographs["image"].as_stored and image.size == (width, height):
            files["image"] = _own_bytes(row) or files["image"]
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


def small_rows(rows: Iterable[Row], sizes: Sequence[Size]) -> dict[Place, RowError]:
    """Place -> error of each row whose image is smaller than its bucket.

    Args:
      rows: rows with `size`.
      sizes: sizes of the buckets.
    """
    found = {}
    for row in rows:
        if is_small(row.size, sizes):
            height, width = nearest_bucket(row.size[::-1], sizes)
            found[row.place] = RowError(
                f"image {row.image} is {by(row.size)} pixels, smaller than {width}x{height}"
            )
    return found


def _photograph(row: Row, name: str) -> Photograph:
    """A picture of a row. Raises RowError."""
    try:
        photograph = read_photograph(row.pictures.open(name), name)
    except (ValueError, OSError) as error:
        raise RowError(str(error)) from error
    for note in photograph.notes:
        logging.warning("%s: %s", name, note)
    return photograph


def _mask(row: Row, indices: tuple[int, ...]) -> Image.Image:
    """The mask of a row, mode L. Raises RowError."""
    try:
        return read_mask(row.pictures.open(row.mask), row.mask, indices=indices)
    except (ValueError, OSError) as error:
        raise RowError(str(error)) from error


def _own_bytes(row: Row) -> bytes | None:
    """The original JPEG file without metadata, to avoid compressing it a second time."""
    content = row.pictures.open(row.image)
    content = content if isinstance(content, bytes) else content.read_bytes()
    try:
        return without_metadata(content) if is_jpeg(content) else None
    except ValueError:  # decoders are more tolerant
        return None


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
