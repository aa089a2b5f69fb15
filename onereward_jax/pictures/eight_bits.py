"""Pixels of any mode of Pillow to 8 bits: RGB, or greys.

16 bits are scaled by 1/257, so that 65535 becomes 255. Pillow itself clips them (mode I), or drops
the scale. What the range of 32-bit integers and floats is, the file does not say; it is decided by
the greatest value, see `range_of`, and ambiguous values are refused.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms, ImageMode

BYTE_OF_16_BITS = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32895) >> 16).astype(np.uint8)
"""Value of 16 bits -> round(value / 257)."""

SCALED_FORMATS = ("PNG", "PPM")
"""Formats whose integers Pillow has scaled to 16 bits, also in mode I."""

LEAST_BYTES = 32
"""Floats whose greatest value is between 1 and this are ambiguous: HDR, or dark 8-bit values?"""

STRIP = 1 << 22
"""Pixels that are converted at a time."""

WIDE = ("I", "F")


def is_wide(picture: Image.Image) -> bool:
    """Whether the picture has one channel of more than 8 bits."""
    return picture.mode in WIDE or picture.mode.startswith("I;")


def greys_of_wide(picture: Image.Image) -> Image.Image:
    """A picture of one channel of more than 8 bits, as mode L.

    Raises:
      ValueError: its values are not in a known range.
    """
    values = array_of_wide(picture)
    scale = 255.0 / range_of(picture, values)
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, STRIP // values.shape[1])
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        if part.dtype == np.uint16 and scale == 255.0 / 65535:
            pixels[start : start + rows] = BYTE_OF_16_BITS[part]
        else:
            pixels[start : start + rows] = np.rint(np.clip(part * scale, 0, 255))
    return Image.fromarray(pixels)


def array_of_wide(picture: Image.Image) -> np.ndarray:
    """The values of a picture of one wide channel: uint16, int32 or float32."""
    if picture.mode in WIDE:
        return np.asarray(picture)
    stored = np.dtype(ImageMode.getmode(picture.mode).typestr)
    # Image.__array_interface__ does not know every one of these modes.
    values = np.frombuffer(picture.tobytes(), stored).reshape(picture.size[::-1])
    return values.astype(stored.newbyteorder("="), copy=False)


def range_of(picture: Image.Image, values: np.ndarray) -> float:
    """The value that is white, of a picture of one wide channel.

    16 bits: 65535, or what the TIFF's bits per sample allow. 32-bit integers: 255 if no value is
    greater, else 65535. Floats: 1 if no value is greater, else 255.

    Raises:
      ValueError: a value is negative, greater, or not a number; or the range is ambiguous.
    """
    low, high = values.min().item(), values.max().item()
    if picture.mode == "F":
        if not (low >= -1e-3 and high <= 255 and not 1.001 < high < LEAST_BYTES):  # also NaN
            raise ValueError(
                f"its floating-point values are from {low:.4g} to {high:.4g}: [0, 1] or [0, 255] "
                "expected"
            )
        return 1.0 if high <= 1.001 else 255.0
    if low < 0 or high > 65535:
        raise ValueError(
            f"its {picture.mode} values are from {low} to {high}: 8 or 16 bits expected, from 0"
        )
    if picture.mode == "I" and high <= 255 and picture.format not in SCALED_FORMATS:
        return 255.0
    return float(2 ** _bits(picture) - 1)


def rgb_of(picture: Image.Image) -> Image.Image:
    """A decoded picture as mode RGB, without profile: CMYK by Pillow's formula, alpha dropped.

    Raises:
      ValueError: as `greys_of_wide`.
    """
    mode = picture.mode
    if mode == "RGB":
        return picture
    if is_wide(picture):
        return greys_of_wide(picture).convert("RGB")
    if mode == "La":
        picture = picture.convert("LA")
    elif mode == "RGBa":
        picture = picture.convert("RGBA")
    elif mode == "PA":
        picture = picture.convert("RGBA")
    elif mode == "LAB":
        return ImageCms.profileToProfile(
            picture,
            ImageCms.createProfile("LAB"),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
        )
    return picture.convert("RGB")


def _bits(picture: Image.Image) -> int:
    """Bits that the values of a picture of mode I or I;16 use: 12 in some TIFFs, else 16."""
    stated = getattr(picture, "tag_v2", {}).get(258, (16,))
    return stated[0] if stated[0] in range(9, 17) else 16
