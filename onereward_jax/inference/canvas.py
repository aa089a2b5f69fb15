"""Outpainting canvas, and pasting an edit back into its source.

Single letters: h, w height and width in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from onereward_jax.inference.picture_io import check_shapes

GREY = (128, 128, 128)
"""Fill colour, equal to the model's input under the mask: resampling adds no colour at the seam."""

WHITE = 255


class Padding(NamedTuple):
    """Pixels added on each side."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def parse(cls, text: str) -> Padding:
        """From "left,top,right,bottom".

        Raises:
          ValueError: not four integers, one is negative, or all are 0.
        """
        parts = text.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            raise ValueError(
                f"pad {text!r}: four integers expected, left,top,right,bottom in pixels"
            )
        padding = cls(*map(int, parts))
        if not any(padding):
            raise ValueError(f"pad {text!r}: at least one side must be above 0")
        return padding


def canvas_size(size: tuple[int, int], padding: Padding) -> tuple[int, int]:
    """Width and height of the canvas of a picture of this size.

    Raises:
      ValueError: the canvas is larger than Pillow's limit, `Image.MAX_IMAGE_PIXELS`.
    """
    size = (padding.left + size[0] + padding.right, padding.top + size[1] + padding.bottom)
    if size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"pad makes an image of {size[0]}x{size[1]} pixels, above Pillow's limit of "
            f"{Image.MAX_IMAGE_PIXELS}"
        )
    return size


def extended(picture: Image.Image, padding: Padding) -> tuple[Image.Image, Image.Image]:
    """(canvas, mask): the image on a larger canvas, and a mask that is white in the added area.

    Raises:
      ValueError: as `canvas_size`.
    """
    size = canvas_size(picture.size, padding)
    canvas, mask = Image.new("RGB", size, GREY), Image.new("L", size, WHITE)
    canvas.paste(picture.convert("RGB"), padding[:2])
    mask.paste(0, (*padding[:2], padding.left + picture.width, padding.top + picture.height))
    return canvas, mask


def paste_back(
    source: Image.Image, edited: Image.Image, mask: Image.Image, feather: int = 8
) -> Image.Image:
    """Pastes the edit into the source where the mask is white, at the source's original size.

    Blending happens outside the mask, so that nothing under the mask shows through: the edit fades
    out linearly over `feather` pixels. Beyond them the source is unchanged, bit for bit.

    Args:
      source: the source image.
      edited: the edited image, in any size.
      mask: white = edited.
      feather: blending width in pixels of the source; 0 for a hard edge.

    Raises:
      ValueError: `feather` is negative, or mask and source differ in aspect ratio.
    """
    if feather < 0:
        raise ValueError(f"feather is {feather}: at least 0 pixels expected")
    check_shapes(source.size, mask.size)
    whole = mask.resize(source.size, Image.Resampling.LANCZOS).convert("L")
    opacity = seam(np.asarray(whole) >= 128, feather)[..., None]
    before = np.asarray(source.convert("RGB"), np.float64)
    after = np.asarray(edited.resize(source.size, Image.Resampling.LANCZOS), np.float64)
    return Image.fromarray(np.rint(before + opacity * (after - before)).astype(np.uint8))


def seam(edited: Bool[np.ndarray, "h w"], feather: int) -> Float[np.ndarray, "h w"]:
    """Opacity of the edit: 1 inside the mask, falling linearly to 0 at distance `feather` + 1.

    Args:
      edited: where the mask is white; if nowhere, the opacity is 0.
      feather: blending width in pixels.
    """
    if not edited.any():
        return np.zeros(edited.shape)
    distance = ndimage.distance_transform_edt(~edited)
    return np.clip(1.0 - distance / (feather + 1), 0.0, 1.0)
