"""Outpainting canvas."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

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
      ValueError: it is larger than Pillow's limit, `Image.MAX_IMAGE_PIXELS`.
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
