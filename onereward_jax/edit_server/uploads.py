"""Pictures from strangers: looked at before they are decoded."""

from __future__ import annotations

from onereward_jax.inference.canvas import Padding, canvas_size
from onereward_jax.pictures.opening import opened

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF")
"""Pillow's names of formats that are decoded. Others start programs (EPS) or have decoders that
nobody needs here."""


def check_upload(content: bytes, field: str, megapixels: int) -> tuple[int, int]:
    """Width and height as stored, from the header.

    Args:
      content: the file.
      field: of the request, in messages.
      megapixels: at most.

    Raises:
      ValueError: it is no picture, of a format that is not read here, or too large.
    """
    with opened(content, field) as picture:
        kind, size = picture.format or "", picture.size
    if kind not in FORMATS:
        raise ValueError(f"{field}: {kind or 'this format'} is not read here: send PNG or JPEG")
    check_pixels(size, field, megapixels)
    return size


def check_canvas(size: tuple[int, int], pad: str, megapixels: int) -> None:
    """Raises ValueError unless a picture can be extended by `pad`, see `Padding.parse`."""
    check_pixels(canvas_size(size, Padding.parse(pad)), "pad", megapixels)


def check_pixels(size: tuple[int, int], field: str, megapixels: int) -> None:
    """Raises ValueError for more than so many millions of pixels."""
    if size[0] * size[1] > megapixels * 1_000_000:
        raise ValueError(
            f"{field}: {size[0]}x{size[1]} pixels are more than {megapixels} megapixels, which is "
            "the most here"
        )
