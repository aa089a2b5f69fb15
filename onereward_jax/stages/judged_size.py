"""Brings a picture of any size to the size at which the judge sees candidates."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.pictures import PictureSource, read_picture


def judged_pixels(picture: PictureSource, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture at a size, in sRGB.

    A picture of this size is returned as it is. Another one is turned as its EXIF data says,
    cropped around its centre to the aspect ratio, and resized (Lanczos).

    Args:
      picture: see `pictures`.
      size: height and width in pixels.
    """
    upright = read_picture(picture)
    height, width = size
    if upright.size == (width, height):
        return np.asarray(upright)
    return np.asarray(
        upright.resize((width, height), Image.LANCZOS, box=crop_box(upright.size, width / height))
    )


def crop_box(size: tuple[int, int], ratio: float) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest window with an aspect ratio, in the centre.

    Args:
      size: width and height of the picture.
      ratio: width over height of the window.
    """
    width, height = size
    columns, lines = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - columns) / 2, (height - lines) / 2
    return left, top, left + columns, top + lines
