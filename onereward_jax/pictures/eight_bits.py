"""Pixels of any mode of Pillow to 8 bits: RGB, or greys.

16 bits are scaled by 1/257, so that 65535 becomes 255. Pillow itself clips them (mode I), or drops
the scale. What the range of 32-bit integers and floats is, the file does not say; it is decided by
the greatest value, see `range_of`, and ambiguous values are refused.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageMode

BYTE_OF_16_BITS = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32895) >> 16).astype(np.uint8)
"""Value of 16 bits -> round(value / 257)."""

SCALED_FORMATS = ("PNG", "PPM")
"""Formats whose integers Pillow has scaled to 16 bits, also in mode I."""

LEAST_BYTES = 32
"""Floats whose greatest value is between 1 and this are ambiguous: HDR, or dark 8-bit values?"""

STRIP = 1 << 22
"""Pixels that are converted at a time."""

_WIDE = ("I", "F")
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
"""Tags of a TIFF."""


def is_wide(picture: Image.Image) -> bool:
    """Whether the picture has one channel of more than 8 bits."""
    return picture.mode in _WIDE or picture.mode.startswith("I;")


def greys_of_wide(picture: Image.Image) -> Image.Image:
    """A picture of one channel of more than 8 bits, as mode L.

    Raises:
      ValueError: its values are not in a known range.
    """
    values = array_of_wide(picture)
    white = range_of(picture, values)
    inverted = _tiff(picture, _PHOTOMETRIC) == (0,)  # Pillow does so up to 8 bits only
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, STRIP // values.shape[1])
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        if part.dtype == np.uint16 and white == 65535:
            found = BYTE_OF_16_BITS[part]
        else:
            found = np.rint(np.clip(part * (255.0 / white), 0, 255)).astype(np.uint8)
        pixels[start : start + rows] = 255 - found if inverted else found
    return Image.fromarray(pixels)


def array_of_wide(picture: Image.Image) -> np.ndarray:
    """The values of a picture of one wide channel: uint16, int32, uint32 or float32."""
    if picture.mode in _WIDE:
        values = np.asarray(picture)
        unsigned = _tiff(picture, _SAMPLE_FORMAT) == (1,) and _tiff(picture, _BITS) == (32,)
        return values.view(np.uint32) if unsigned else values
    stored = np.dtype(ImageMode.getmode(picture.mode).typestr)
    # Image.__array_interface__ does not know every one of these modes.
    values = np.frombuffer(picture.tobytes(), stored).reshape(picture.size[::-1])
    return values.astype(stored.newbyteorder("="), copy=False)


def range_of(picture: Image.Image, values: np.ndarray) -> float:
    """The value that is white, of a picture of one wide channel.

    16 bits: 65535; of a TIFF with fewer or signed bits their greatest value. 32-bit integers: 255
    if no value is greater, else 65535. Floats: 1 if no value is greater, else 255.

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
        raise ValueError(f"its values are from {low} to {high}: 0 to 255 or to 65535 expected")
    (bits,) = _tiff(picture, _BITS) or (32 if picture.mode == "I" else 16,)
    if bits < 32:
        signed = _tiff(picture, _SAMPLE_FORMAT) == (2,)
        return 2.0 ** (bits - signed) - 1
    return 255.0 if high <= 255 and picture.format not in SCALED_FORMATS else 65535.0


def rgb_of(picture: Image.Image) -> Image.Image:
    """A decoded picture as mode RGB, without profile: CMYK by Pillow's formula, alpha dropped.

    Raises:
      ValueError: as `greys_of_wide`; or Pillow would misread the picture.
    """
    mode = picture.mode
    if _tiff(picture, _PLANAR) == (2,) and max(_tiff(picture, _BITS), default=1) > 8:
        raise ValueError(
            "Pillow misreads TIFFs of 16 bits whose channels are stored one after the other: save "
            "it with 8 bits, or with interleaved channels"
        )
    if mode == "RGB":
        return picture
    if is_wide(picture):
        return greys_of_wide(picture).convert("RGB")
    if mode == "CMYK":
        return cmyk_of(picture).convert("RGB")
    if mode == "LAB":
        return ImageCms.profileToProfile(
            picture,
            ImageCms.createProfile("LAB"),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
        )
    direct = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}  # other ways do not exist
    return picture.convert(direct.get(mode, mode)).convert("RGB")


def cmyk_of(picture: Image.Image) -> Image.Image:
    """A picture of mode CMYK with 255 for full ink.

    Adobe writes JPEGs the other way round. Pillow undoes this even where no Adobe marker tells it.
    """
    plain_jpeg = picture.format in ("JPEG", "MPO") and "adobe" not in picture.info
    return ImageChops.invert(picture) if plain_jpeg else picture


def _tiff(picture: Image.Image, tag: int) -> tuple[int, ...]:
    """A tag of an opened TIFF; () for other pictures, or if it is missing."""
    found = getattr(picture, "tag_v2", {}).get(tag, ())
    return found if isinstance(found, tuple) else (found,)
