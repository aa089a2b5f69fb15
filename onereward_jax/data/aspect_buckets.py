"""Aspect-ratio buckets: a few fixed image sizes, with one compiled step each."""

from __future__ import annotations

import math
from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width in pixels."""

MULTIPLE = 16
"""Side of a FLUX token in pixels: 8 (VAE) times 2 (patch)."""


def bucket_sizes(image_size: int, aspect_ratios: Sequence[float]) -> tuple[Size, ...]:
    """The size of every bucket, with about the same area as a square of `image_size`.

    Args:
      image_size: side of the square in pixels; a multiple of 16.
      aspect_ratios: width over height; ratios with the same rounded size share a bucket.

    Raises:
      ValueError: the side is not a multiple of 16, there is no ratio, or a ratio is not positive or
        gives a side below 16 pixels.
    """
    if image_size % MULTIPLE or image_size <= 0:
        raise ValueError(f"image_size must be a multiple of {MULTIPLE}, found {image_size}")
    if not aspect_ratios:
        raise ValueError("aspect_ratios is empty: name at least one, 1.0 for squares")
    sizes = []
    for ratio in aspect_ratios:
        if not 0 < ratio < math.inf:
            raise ValueError(f"aspect_ratios: {ratio} is not a positive number (width over height)")
        sides = image_size / math.sqrt(ratio), image_size * math.sqrt(ratio)
        height, width = (MULTIPLE * round(side / MULTIPLE) for side in sides)
        if not height or not width:
            raise ValueError(f"aspect_ratios: {ratio} is too extreme for image_size {image_size}")
        sizes.append((height, width))
    return tuple(dict.fromkeys(sizes))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket with the nearest aspect ratio, which crops an image of `size` least."""
    shape = math.log(size[1] / size[0])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[1] / bucket[0]) - shape))
