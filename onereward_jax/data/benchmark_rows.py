"""One row of a benchmark: a source picture, a mask, and perhaps a prompt and a target.

`benchmark_folders` reads them from folders in several layouts.

Single letters: h, w height and width in pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from onereward_jax.data.example import RowError
from onereward_jax.data.row_sources import Place
from onereward_jax.pictures import read_mask, read_picture
from onereward_jax.pictures.mask_reading import EDITED
from onereward_jax.tasks import FIXED_PROMPTS, Task

Stored = Callable[[], Path | bytes]
"""The file of a picture, or its content if it is inside another file; raises RowError."""

QUOTED = re.compile(r'["“”]([^"“”]+)["“”]')
"""Words that a prompt asks to be written, as in: the word "SALE"."""


@dataclasses.dataclass(frozen=True)
class MaskRuns:
    """A mask as run lengths, in BrushBench's code.

    Pixels are counted row by row from 1, as in `rle2mask` of BrushNet's `evaluate_brushnet.py`;
    COCO's run lengths are column by column and begin with zeros.

    Attributes:
      runs: first pixel and length of each run of ones, alternating.
    """

    runs: tuple[int, ...]

    def read(self, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """The mask of a picture of width and height `size`.

        Raises:
          RowError: a run leaves the picture, or there is none.
        """
        width, height = size
        flat = np.zeros(height * width, bool)
        for first, length in zip(self.runs[::2], self.runs[1::2]):
            if not (first >= 1 and length >= 1 and first - 1 + length <= flat.size):
                raise RowError(
                    f"the run of {length} pixels from pixel {first} is not in a picture of "
                    f"{width}x{height}: its pixels are 1 to {flat.size}"
                )
            flat[first - 1 : first - 1 + length] = True
        if not flat.any():
            raise RowError("the mask is empty")
        return flat.reshape(height, width)


class RowPixels(NamedTuple):
    """The decoded pictures of a row, of one size.

    Attributes:
      source: what is edited, sRGB.
      mask: True where it is edited.
      truth: the known result; None if unknown.
    """

    source: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    truth: UInt8[np.ndarray, "h w 3"] | None


@dataclasses.dataclass(frozen=True)
class BenchmarkRow:
    """A row.

    Attributes:
      place: where it is, for messages.
      name: unique in its benchmark: path of its results, without suffix.
      image: the source picture.
      mask: white where to edit; or run lengths.
      target: the known result; None if unknown.
      prompt: the prompt, or the task's fixed one.
      task: the task.
      stored: width and height of the upright source as stored.
      size: width and height to edit and to measure at.
      indices: values of the mask that mark the area; (): white does.
    """

    place: Place
    name: str
    image: Stored = dataclasses.field(repr=False, compare=False)
    mask: Stored | MaskRuns = dataclasses.field(repr=False, compare=False)
    target: Stored | None = dataclasses.field(repr=False, compare=False)
    prompt: str
    task: Task
    stored: tuple[int, int]
    size: tuple[int, int]
    indices: tuple[int, ...] = ()

    @property
    def described(self) -> bool:
        """Whether the prompt says what to see: the fixed prompts do not."""
        return self.prompt != FIXED_PROMPTS.get(self.task)

    @property
    def words(self) -> str:
        """The words in quotes in the prompt; "" for none."""
        return " ".join(QUOTED.findall(self.prompt)) if self.described else ""

    def read(self) -> RowPixels:
        """Decodes the pictures, at `size`.

        Raises:
          RowError: a file is missing, unreadable or of another size, or the mask is empty.
        """
        try:
            source = read_picture(self.image())
            truth = None if self.target is None else read_picture(self.target())
            if isinstance(self.mask, MaskRuns):
                mask = Image.fromarray(self.mask.read(source.size))
                mask = mask.convert("L").resize(self.size, Image.Resampling.LANCZOS)
            else:
                mask = read_mask(self.mask(), indices=self.indices, size=self.size)
        except RowError:
            raise
        except (OSError, ValueError) as error:
            raise RowError(str(error)) from error
        edited = np.asarray(mask) >= EDITED
        if not edited.any():
            raise RowError("the mask is empty: it has no white pixels, which mark where to edit")
        return RowPixels(
            resized(source, self.size),
            edited,
            None if truth is None else resized(truth, self.size),
        )

    def digest(self) -> str:
        """Fingerprint of all that its results and its measurements depend on. Raises RowError."""
        parts = [self.prompt, self.task.value, *self.size, *self.indices]
        for one in (self.image, self.mask, self.target):
            if isinstance(one, MaskRuns):
                parts.append(one.runs)
            else:
                parts.append(None if one is None else _digest(one()))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def resized(picture: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels at a width and height; a picture of this size stays as it is."""
    same = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(same.convert("RGB"))


def within(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """A width and height, scaled down so that no side is longer than `longest_side`; 0: never."""
    if not longest_side or max(size) <= longest_side:
        return size
    scale = longest_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _digest(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
