"""Opens pictures from paths, bytes, arrays and opened pictures: header first, errors in a sentence.

Pillow's readers raise errors of many types on damaged files; here all of them become a ValueError
that names the file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from onereward_jax.common.user_path import is_url
from onereward_jax.pictures.array_pictures import AnyArray, picture_of_array
from onereward_jax.pictures.orientation import header_orientation, is_turned
from onereward_jax.pictures.png_chunks import File, check_pixels, without_bad_texts

Content = bytes | bytearray | memoryview
PictureSource = Image.Image | AnyArray | Content | str | os.PathLike[str]
"""A path ("~" is the home folder), the content of a file, an opened picture, or an array (see
`array_pictures`)."""

ISO_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF",
    b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC",
}  # fmt: skip
"""Brand in the first box of a file -> format that may need a plug-in of Pillow."""

LONGEST_REASON = 200
"""Characters of a library's message that an error quotes."""

# The limit itself stays: Pillow refuses pictures of more than twice `Image.MAX_IMAGE_PIXELS`.
# Photographs of 100 megapixels are between the two.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class RefusedPictureError(Exception):
    """A picture that can be read, but not be used; the message lacks its name."""


@contextlib.contextmanager
def opened(source: PictureSource, name: str = "") -> Iterator[Image.Image]:
    """The opened picture, of which only the header has been read; closed after the block.

    OSErrors and ValueErrors raised inside the block get the picture's name. An opened picture of
    the caller stays open.

    Args:
      source: the picture.
      name: its name in messages; "": the path, or what kind of source it is.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not a readable picture.
    """
    shown = shown_name(source, name)
    with contextlib.ExitStack() as stack:
        try:
            with as_value_errors():
                picture = _open(source, shown, stack)
            yield picture
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {shown}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown} is not a readable image: {reason(error)}") from error


@contextlib.contextmanager
def as_value_errors() -> Iterator[None]:
    """Turns what Pillow raises on damaged files, which is nearly every type, to ValueErrors."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(reason(error)) from error


def decode(picture: Image.Image, at_least: tuple[int, int] | None = None) -> None:
    """Decodes the pixels of an opened picture, unless they are.

    Args:
      picture: from `opened`, inside its block.
      at_least: width and height that suffice: a larger JPEG is decoded at 1/2, 1/4 or 1/8.

    Raises:
      OSError, ValueError: the file is damaged.
    """
    with as_value_errors():
        if picture.format == "PNG" and (file := getattr(picture, "fp", None)) is not None:
            check_pixels(file)
        if at_least is not None:
            picture.draft(picture.mode, at_least)
        picture.load()


def stored_size(source: PictureSource, name: str = "") -> tuple[int, int]:
    """Width and height of the upright picture, from the header: nothing is decoded.

    Args:
      source: the picture.
      name: its name in messages.

    Raises:
      FileNotFoundError, ValueError: as `opened`.
    """
    with opened(source, name) as picture:
        return picture.size[::-1] if is_turned(header_orientation(picture)) else picture.size


def picture_list(value: PictureSource | Sequence[PictureSource]) -> list[Any]:
    """One picture or several, as a list.

    An array [b, h, w, c] is a batch, and so is [b, h, w] unless its last axis may be channels.
    """
    if isinstance(value, str | os.PathLike | Image.Image | Content):
        return [value]
    if isinstance(value, AnyArray):
        array = np.asarray(value)
        one = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
        return [array] if one else list(array)
    return list(value)


def shown_name(source: PictureSource, name: str = "") -> str:
    """The name of a picture in messages."""
    if name:
        return name
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or "the opened picture"
    return "the array" if isinstance(source, AnyArray) else "the picture in memory"


def reason(error: Exception) -> str:
    """Why a library could not read a picture, in a line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ValueError | OSError | SyntaxError | Image.DecompressionBombError):
        text = str(error).partition("\n")[0]
    else:  # the message of a KeyError alone says nothing
        text = f"damaged ({type(error).__name__}: {error})".partition("\n")[0]
    return text[:LONGEST_REASON] or type(error).__name__


@functools.lru_cache(maxsize=1024)
def warn_once(text: str) -> None:
    """Logs a warning, the first time only."""
    logging.warning("%s", text)


def _open(source: PictureSource, shown: str, stack: contextlib.ExitStack) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Content):
        return stack.enter_context(_open_file(io.BytesIO(source), shown))
    if isinstance(source, (str, os.PathLike)):
        if is_url(source):
            raise OSError("it is a URL: save the picture and give its path")
        path = os.path.expanduser(source)
        if os.path.isdir(path):
            raise OSError("it is a folder")
        file = stack.enter_context(open(path, "rb"))
        return stack.enter_context(_open_file(file, shown))
    if isinstance(source, AnyArray):
        return picture_of_array(np.asarray(source))
    kind = type(source).__name__
    raise ValueError(f"a path, bytes, an opened picture or an array expected, found {kind}")


def _open_file(file: File, shown: str) -> Image.Image:
    try:
        if (better := without_bad_texts(file)) is not None:
            warn_once(f"{shown}: damaged or very long metadata are ignored")
            file = better
        file.seek(0)
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(32)
    if not start:
        raise OSError("the file is empty")
    if start[4:8] == b"ftyp" and (kind := _iso_format(start)):
        if not register_plug_in(kind):
            package = PLUG_INS[kind]
            raise OSError(f"{kind} needs a plug-in of Pillow: pip install {package}")
        file.seek(0)
        return Image.open(file)
    if start[:2] in (b"II", b"MM"):
        raise OSError("a TIFF of a kind that Pillow does not know: save it with 8 bits per channel")
    raise UnidentifiedImageError("cannot identify image file: unknown, or damaged at its start")


PLUG_INS = {"HEIC": "pillow-heif", "AVIF": "pillow-avif-plugin"}
"""Format -> package that teaches it to Pillow; Pillow 11.3 and later read AVIF without."""


def register_plug_in(kind: str) -> bool:
    """Registers the plug-in of a format with Pillow; whether it is installed."""
    try:
        if kind == "HEIC":
            importlib.import_module("pillow_heif").register_heif_opener()
        else:
            importlib.import_module("pillow_avif")
    except ImportError:
        return False
    return True


def _iso_format(start: bytes) -> str | None:
    brands = (start[8:12], *(start[place : place + 4] for place in range(16, len(start), 4)))
    return next((ISO_BRANDS[brand] for brand in brands if brand in ISO_BRANDS), None)
