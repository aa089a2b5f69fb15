"""Writes pictures: whole or not at all, with their colour profile, and as close as the format can.

PNG, TIFF, WebP and JPEG 2000 are lossless. JPEG has quality 98 without chroma subsampling, AVIF and
HEIC their highest quality. No EXIF data are written: the pixels are upright.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from PIL import Image

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.user_path import is_url, user_path
from onereward_jax.pictures import colour_profiles
from onereward_jax.pictures.opening import PLUG_INS, register_plug_in

OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 98, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "quality": 80, "method": 4},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": 100, "chroma": 444},
    "JPEG2000": {},
    "BMP": {},
    "PPM": {},
    "TGA": {},
    "QOI": {},
}
"""Format -> options of Pillow's writer; other formats cannot hold a photograph."""

WITH_PROFILE = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF")
"""Formats that carry an ICC profile; in others, pictures are sRGB."""

LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65536, "HEIF": 16384, "TGA": 65535}
"""Pixels of a side that the formats' writers can do."""

USUAL = ".png, .jpg, .webp or .tiff"


def check_output(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> None:
    """Checks that a picture can be written to a path, before there is one.

    Args:
      path: the file to be written.
      size: width and height of the picture; None: not known yet.

    Raises:
      ValueError: its suffix names no format that is written, it is a folder, its folder cannot be
        written to, or the format has no pictures of this size.
    """
    if is_url(path):
        raise ValueError(f"{os.fspath(path)} is a URL: the name of a local file expected")
    path = user_path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: the name of a picture expected")
    kind = _format_of(path)
    if size is not None and max(size) > LONGEST_SIDE.get(kind, max(size)):
        raise ValueError(
            f"{path}: {kind} has at most {LONGEST_SIDE[kind]} pixels per side, the picture "
            f"{size[0]}x{size[1]}"
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"{path} cannot be written: {folder} is a file")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission to write to {folder}")


def write_picture(
    path: str | os.PathLike[str], picture: Image.Image, profile: bytes | None = None
) -> None:
    """Writes a picture; a file that is there is replaced when the new one is complete.

    Args:
      path: the file; its suffix names the format.
      picture: mode RGB or L, upright.
      profile: ICC profile of the pixels; None: sRGB. A format without profiles gets sRGB pixels.

    Raises:
      ValueError: as `check_output`, or another mode.
    """
    path = user_path(path)
    check_output(path, picture.size)
    kind = _format_of(path)
    if picture.mode not in ("RGB", "L"):
        raise ValueError(f"{path} cannot be written: the picture has mode {picture.mode}, not RGB")
    if kind not in WITH_PROFILE:
        picture, profile = colour_profiles.to_srgb(picture, profile), None
    if picture.info:  # an old orientation or profile would be written too
        picture = picture.copy()
        picture.info = {}
    embedded = {"icc_profile": profile} if profile else {}
    with atomic_file(path) as draft:
        picture.save(draft, kind, **OPTIONS[kind], **embedded)


def _format_of(path: pathlib.Path) -> str:
    """Pillow's name of the format of a file name; raises ValueError."""
    suffix = path.suffix.lower()
    for name in PLUG_INS if suffix in (".heic", ".heif", ".avif") else ():
        register_plug_in(name)
    kind = Image.registered_extensions().get(suffix, "")
    if kind in OPTIONS and kind in Image.SAVE:
        return kind
    if suffix in (".heic", ".heif", ".avif"):
        package = PLUG_INS["AVIF" if suffix == ".avif" else "HEIC"]
        raise ValueError(f"{path}: {suffix} needs a plug-in of Pillow: pip install {package}")
    found = f"pictures are not written as {suffix}" if suffix else "the name has no suffix"
    raise ValueError(f"{path}: {found}: use {USUAL}")
