"""The window of a large photograph that is edited, and the size in which the model sees it.

As training crops (`data.folder_source`), a window has the shape of a bucket, lies inside the
picture and is centred on the mask as far as possible. Unlike them it is not the largest one, so
that the model sees the masked area at its own resolution instead of a scaled-down photograph.

Single letters: h, w height and width in pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image

from onereward_jax.data.aspect_buckets import MULTIPLE, Size, bucket_sizes, nearest_bucket
from onereward_jax.data.boxes import Box

MAGNIFIED = 2.0
"""A window is scaled up by no more than this where the photograph has pixels enough: magnified
pixels hold no detail, and pixels around the mask tell the model more."""


@dataclasses.dataclass(frozen=True)
class CropWindow:
    """A part of a photograph.

    Attributes:
      left, top, right, bottom: edges in pixels, half-open, as in `Image.crop`.
      size: height and width in which it is edited, multiples of 16.
    """

    left: int
    top: int
    right: int
    bottom: int
    size: Size

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), as Pillow has it."""
        return self.left, self.top, self.right, self.bottom


def crop_window(
    box: Box,
    picture: Size,
    *,
    resolution: int,
    aspect_ratios: Sequence[float],
    context: float,
    margin: int,
) -> CropWindow:
    """The window around a masked area.

    Its sides are `context` times those of the area, but at least half the model's resolution and
    `margin` on each side. They grow to the aspect ratio of the nearest bucket. At the border of the
    picture the window is shifted, and where the picture is too small it gives up context, then the
    bucket's aspect ratio.

    Args:
      box: around the masked pixels, (y0, x0, y1, x1).
      picture: height and width of the photograph.
      resolution: side of a square picture of the model's training, in pixels.
      aspect_ratios: of the buckets, see `bucket_sizes`.
      context: at least 1.
      margin: pixels beyond the mask that the seam needs.

    Raises:
      ValueError: `context` is below 1 or not finite.
    """
    check_context(context)
    least = [min(box[axis + 2] - box[axis] + 2 * margin, picture[axis]) for axis in (0, 1)]
    wanted = [
        min(max(math.ceil(context * (box[axis + 2] - box[axis])), least[axis],
                math.ceil(resolution / MAGNIFIED)), picture[axis])
        for axis in (0, 1)
    ]  # fmt: skip
    size = nearest_bucket(tuple(wanted), bucket_sizes(resolution, aspect_ratios))
    ratio = size[1] / size[0]
    rows = max(wanted[0], round(wanted[1] / ratio))
    rows = min(rows, picture[0], round(picture[1] / ratio))
    sides = [rows, min(round(rows * ratio), picture[1])]
    if sides[0] < least[0] or sides[1] < least[1]:
        sides, size = wanted, free_size(tuple(wanted), resolution)
    top, left = (
        min(max((box[axis] + box[axis + 2] - sides[axis]) // 2, 0), picture[axis] - sides[axis])
        for axis in (0, 1)
    )
    return CropWindow(left, top, left + sides[1], top + sides[0], size)


def free_size(window: Size, resolution: int) -> Size:
    """The size for a window of any aspect ratio: about `resolution` squared pixels."""
    scale = resolution / math.sqrt(window[0] * window[1])
    height, width = (max(MULTIPLE, MULTIPLE * round(side * scale / MULTIPLE)) for side in window)
    return height, width


def check_context(context: float) -> None:
    """Raises ValueError unless `context` is a number of at least 1."""
    if not 1.0 <= context < math.inf:
        raise ValueError(f"context is {context}, a number of at least 1 expected")


def window_mask(edited: Bool[np.ndarray, "h w"], size: Size) -> Image.Image:
    """A window's mask for the model: white wherever one pixel below is to be edited.

    So no thin line is lost, and what is pasted back has all been edited.
    """
    mask = Image.fromarray(edited)  # mode 1
    if mask.size == size[::-1]:
        return mask.convert("L")
    # A share of a pixel in floats: in 8 bits, one of a thousand would be rounded off.
    share = Image.fromarray(edited.astype(np.float32)).resize(size[::-1], Image.Resampling.BOX)
    return Image.fromarray(np.asarray(share) > 1e-6).convert("L")
