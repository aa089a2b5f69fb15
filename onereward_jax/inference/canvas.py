"""Around an edit: a larger canvas to extend into, and pasting the edit back into its source.

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
"""What the model sees under the mask anyway; resampling then brings no colour in at the seam."""

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
                f"pad {text!r}: four numbers of pixels expected, left,top,right,bottom"
            )
        padding = cls(*map(int, parts))
        if not any(padding):
            raise ValueError(f"pad {text!r} adds nothing: one side must be above 0")
        return padding


def extended(picture: Image.Image, padding: Padding) -> tuple[Image.Image, Image.Image]:
    """(canvas, mask): the picture on a larger canvas, and white in the mask where it was added.

    Raises:
      ValueError: the canvas is larger than any picture that Pillow opens without a warning.
    """
    size = (
        padding.left + picture.width + padding.right,
        padding.top + picture.height + padding.bottom,
    )
    if size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"pad makes a picture of {size[0]}x{size[1]} pixels, more than Pillow opens "
            f"({Image.MAX_IMAGE_PIXELS})"
        )
    canvas, mask = Image.new("RGB", size, GREY), Image.new("L", size, WHITE)
    canvas.paste(picture.convert("RGB"), padding[:2])
    mask.paste(0, (*padding[:2], padding.left + picture.width, padding.top + picture.height))
    return canvas, mask


def paste_back(
    source: Image.Image, edited: Image.Image, mask: Image.Image, feather: int = 8
) -> Image.Image:
    """The source with the edit where the mask is white, in the source's own size.

    The seam lies outside the mask, so that nothing that was to go shines through: the edit fades
    out linearly over `feather` pixels, and beyond them the source is untouched, bit for bit.

    Args:
      source: before the edit.
      edited: after it, in any size.
      mask: white = edited.
      feather: width of the seam in pixels of the source; 0 for a hard edge.

    Raises:
      ValueError: `feather` is negative, or the mask has another shape than the source.
    """
    if feather < 0:
        raise ValueError(f"feather is {feather}: a number of pixels, at least 0, expected")
    check_shapes(source, mask)
    whole = mask.resize(source.size, Image.Resampling.LANCZOS).convert("L")
    opacity = seam(np.asarray(whole) >= 128, feather)[..., None]
    before = np.asarray(source.convert("RGB"), np.float64)
    after = np.asarray(edited.resize(source.size, Image.Resampling.LANCZOS), np.float64)
    return Image.fromarray(np.rint(before + opacity * (after - before)).astype(np.uint8))


def seam(edited: Bool[np.ndarray, "h w"], feather: int) -> Float[np.ndarray, "h w"]:
    """Opacity of the edit: 1 inside, falling to 0 at `feather` + 1 pixels from the nearest edge.

    Args:
      edited: where the mask is white; 0 everywhere if it is nowhere.
      feather: width of the seam in pixels.
    """
    if not edited.any():
        return np.zeros(edited.shape)
    distance = ndimage.distance_transform_edt(~edited)
    return np.clip(1.0 - distance / (feather + 1), 0.0, 1.0)
