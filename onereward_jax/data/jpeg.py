"""Photographs as JPEG bytes, as fine as the files they come from.

A photograph from a JPEG file that has to be cropped or scaled is compressed again. Its quantization
tables are those of its file, but no coarser than those of quality 90, and its colours are not
subsampled. So records take about the bytes of the source files at the size of training. One that
has that size already keeps its own bytes.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LEAST_QUALITY = 90
"""Quality, as libjpeg counts it, of photographs whose files are coarser."""

_SOS, _APP0, _APP14, _COM = 0xDA, 0xE0, 0xEE, 0xFE
"""Markers: start of scan, JFIF, Adobe's transform of colours, comment."""

Tables = dict[int, list[int]]
"""Quantization tables by number, 64 steps each: 0 of brightness, 1 of colour."""


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes are of a JPEG file."""
    return data.startswith(b"\xff\xd8\xff")


def tables_of(picture: Image.Image) -> Tables | None:
    """Tables to compress a changed copy of a picture with; None where its file is lossless.

    Args:
      picture: as opened; it may be decoded, but not converted.
    """
    least = _tables_of_quality(LEAST_QUALITY)
    if picture.format in ("WEBP", "AVIF", "HEIF"):  # lossy, or of unknown loss
        return least
    found = getattr(picture, "quantization", None)
    if not found:
        return None
    return {
        number: np.minimum(found.get(number, least[number]), least[number]).tolist()
        for number in least
    }


def encode_jpeg(pixels: UInt8[np.ndarray, "h w 3"], tables: Tables) -> bytes:
    """A JPEG file with these tables; colours are stored at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", qtables=tables, subsampling="4:4:4")
    return buffer.getvalue()


def without_metadata(data: bytes) -> bytes:
    """A JPEG file without EXIF (places, cameras, thumbnails), colour profile and comments.

    The pixels stay the same.

    Raises:
      ValueError: the segments before the first scan are damaged.
    """
    kept, place = [data[:2]], 2
    while True:
        if data[place : place + 1] != b"\xff" or place + 4 > len(data):
            raise ValueError("damaged JPEG: no marker where one is due")
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == _SOS:
            return b"".join([*kept, data[place:]])
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        application = _APP0 <= marker <= 0xEF
        if marker in (_APP0, _APP14) or not (application or marker == _COM):
            kept.append(data[place:end])
        place = end


@functools.cache
def _tables_of_quality(quality: int) -> Tables:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return dict(picture.quantization)
