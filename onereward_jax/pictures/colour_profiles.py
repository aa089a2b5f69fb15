"""ICC profiles: from a photograph's colour space to sRGB, which the models know, and back.

Little CMS converts, by the relative colorimetric intent with black point compensation, as photo
editors do by default: colours that both spaces have stay the same, others are clipped. A profile
that moves no colour by more than `SAME` levels is sRGB under another name: such pixels are kept.
What a PNG says in the chunks gAMA, cHRM and cICP is not applied: those pixels count as sRGB, as in
Pillow.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

SAME = 2
"""Levels of 8 bits within which a profile is sRGB; those in use have 0 or 1."""

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC
_SPACES = {"RGB ": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",)}
"""Colour space of a profile -> modes of the pixels that it can describe."""


def space_of(profile: bytes) -> str | None:
    """The mode of the pixels that a profile describes: RGB, L or CMYK; None if it is damaged."""
    try:
        found = _opened(profile).profile.xcolor_space
    except (OSError, ImageCms.PyCMSError, TypeError, ValueError):
        return None
    return _SPACES.get(found, (None,))[0]


def is_srgb(profile: bytes | None) -> bool:
    """Whether pixels with this RGB profile need no conversion."""
    return profile is None or _is_srgb(profile)


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Pixels of a profile's mode as sRGB, mode RGB; the same object if nothing changes.

    Raises:
      PIL.ImageCms.PyCMSError: Little CMS cannot use the profile.
    """
    if profile is None or (picture.mode == "RGB" and _is_srgb(profile)):
        return picture
    transform = _to_srgb(profile, picture.mode)
    if picture.mode != "L":
        return ImageCms.applyTransform(picture, transform)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    colours = np.asarray(ImageCms.applyTransform(ramp, transform))[0]
    return Image.merge("RGB", [picture.point(levels.tolist()) for levels in colours.T])


def from_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB pixels, mode RGB, in the space of an RGB profile; the same object if nothing changes.

    Raises:
      PIL.ImageCms.PyCMSError: the profile has only the other direction.
    """
    if profile is None or _is_srgb(profile):
        return picture
    return ImageCms.applyTransform(picture, _from_srgb(profile))


def is_usable(profile: bytes, mode: str, *, both_ways: bool) -> bool:
    """Whether Little CMS can convert this profile's pixels to sRGB, and back if `both_ways`."""
    try:
        _to_srgb(profile, mode)
        if both_ways:
            _from_srgb(profile)
    except (OSError, ImageCms.PyCMSError, TypeError, ValueError):
        return False
    return True


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@functools.lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.createProfile("sRGB")
    # Little CMS's table for greys is coarse; here it is only asked for 256 of them.
    flags = _FLAGS | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0)
    return ImageCms.buildTransform(_opened(profile), srgb, mode, "RGB", _INTENT, flags)


@functools.lru_cache(maxsize=32)
def _from_srgb(profile: bytes) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(srgb, _opened(profile), "RGB", "RGB", _INTENT, _FLAGS)


@functools.lru_cache(maxsize=32)
def _is_srgb(profile: bytes) -> bool:
    if not is_usable(profile, "RGB", both_ways=False):
        return False
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    found = ImageCms.applyTransform(Image.fromarray(grid), _to_srgb(profile, "RGB"))
    return int(np.abs(np.asarray(found, np.int16) - grid).max()) <= SAME
