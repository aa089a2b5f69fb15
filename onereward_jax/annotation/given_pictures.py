"""Picture files from elsewhere, checked before they are stored.

Only PNG, JPEG and WebP are opened. Size and format are read from the header before anything is
decoded, so that a small file cannot claim the memory (a decompression bomb).
"""

from __future__ import annotations

import hashlib
import io
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from onereward_jax.annotation.comparisons import DIGEST_DIGITS, PICTURES, Picture
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.data.example import RowError
from onereward_jax.data.picture_paths import check_inside
from onereward_jax.pictures import RefusedMaskError, read_mask, read_picture

ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""Formats that are opened -> the endings of their files."""

MAX_PIXELS = 1 << 26
"""Of a picture: 67 million, such as 8192 x 8192."""

MAX_BYTES = 1 << 27
"""Of a picture's file: 134 MB."""


class GivenPicture(NamedTuple):
    """A picture that is read on demand.

    Attributes:
      name: name in messages.
      read: returns the file's content; raises RowError or OSError.
    """

    name: str
    read: Callable[[], bytes]


def picture_in(folder: pathlib.Path, field: str, name: str) -> GivenPicture:
    """The picture in a file of a folder; raises RowError if its path leads out of the folder."""
    check_inside(field, name)
    path = folder / name

    def read() -> bytes:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise RowError(f"{field}: {name} has more than {MAX_BYTES} bytes")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise RowError(f"{field}: there is no file {name}") from None
        except OSError as error:
            raise RowError(f"{field}: {name} cannot be read: {error.strerror}") from error

    return GivenPicture(name, read)


def checked_picture(content: bytes, field: str, *, mask: bool = False) -> Picture:
    """Decodes a picture; its record, with the path that it gets in a folder.

    Args:
      content: content of the file.
      field: field in messages.
      mask: whether it is a mask, whose pixels are binary; of an image, they are sRGB.

    Raises:
      RowError: it is too large, of another format, an animation, or cannot be decoded.
    """
    if len(content) > MAX_BYTES:
        raise RowError(f"{field} has more than {MAX_BYTES} bytes")
    try:
        with Image.open(io.BytesIO(content), formats=tuple(ENDINGS)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise RowError(f"{field} is {width}x{height} pixels, more than {MAX_PIXELS}")
            if getattr(picture, "n_frames", 1) != 1:
                raise RowError(f"{field} is an animation")
            ending = ENDINGS[picture.format]
        if mask:
            white = np.asarray(read_mask(content, field)) >= 128
            pixels = (white * np.uint8(255))[..., None]
        else:
            pixels = np.asarray(read_picture(content, field))
    except RowError:
        raise
    except RefusedMaskError as error:
        raise RowError(str(error)) from None
    except Exception as error:  # damaged headers raise nearly every type
        known = ", ".join(ENDINGS)
        raise RowError(
            f"{field} is not a picture that can be read ({known}): {error.__cause__ or error}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
    return Picture(
        path=f"{PICTURES}/{digest[:2]}/{digest}{ending}",
        digest=digest,
        pixels=pixel_digest(pixels),
        width=pixels.shape[1],
        height=pixels.shape[0],
    )
