"""JPEG compression of records, with the quality of the source files.

A cropped or resized photograph from a JPEG file is compressed again, with the quantization tables
of its file (but at least quality 90) and without chroma subsampling. So records are about as large
as source files of the training size would be. A photograph that already has the training size keeps
its original bytes.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.pictures import Photograph

LEAST_QUALITY = 90
"""Minimum libjpeg quality of compressed photographs."""

_SOS, _APP0, _APP14, _COM = 0xDA, 0xE0, 0xEE, 0xFE
"""Markers: start of scan, JFIF, Adobe colour transform, comment."""

Tables = dict[int, list[int]]
"""Quantization tables by number, 64 values each: 0 luminance, 1 chrominance."""


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes are of a JPEG file."""
    return data.startswith(b"\xff\xd8\xff")


def tables_of(photograph: Photograph) -> Tables | None:
    """Quantization tables for a modified copy of a photograph; None if its file is lossless."""
    least = _tables_of_quality(LEAST_QUALITY)
    if photograph.format in ("WEBP", "AVIF", "HEIF"):  # lossy, or possibly lossy
        return least
    found = photograph.quantization
    if not found:
        return None
    return {
        number: np.minimum(found.get(number, least[number]), least[number]).tolist()
        for number in least
    }


def encode_jpeg(pixels: UInt8[np.ndarray, "h w 3"], tables: Tables) -> bytes:
    """A JPEG file with these quantization tables, without chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", qtables=tables, subsampling="4:4:4")
    return buffer.getvalue()


def without_metadata(data: bytes) -> bytes:
    """A JPEG file without EXIF (location, camera, thumbnail), colour profile and comments.

    The pixels do not change.

    Raises:
      ValueError: the segments before the first scan are damaged.
    """
    kept, place = [data[:2]], 2
    while True:
        if data[place : place + 1] != b"\xff" or place + 4 > len(data):
            raise ValueError("damaged JPEG: marker expected")
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
