"""A photograph: 8-bit RGB, upright, in its own colour space, with what the user should know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from PIL import Image

from onereward_jax.pictures import colour_profiles
from onereward_jax.pictures.eight_bits import cmyk_of, greys_of_wide, is_wide, rgb_of
from onereward_jax.pictures.opening import (
    PictureSource,
    as_value_errors,
    decode,
    opened,
    shown_name,
    warn_once,
)
from onereward_jax.pictures.orientation import stored_orientation, upright


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An opened picture.

    Attributes:
      pixels: mode RGB, 8 bits, upright, in the picture's own colour space.
      profile: ICC profile of `pixels`; None: sRGB.
      notes: what the user should know, such as "the first of 12 frames".
      format: Pillow's name of the file's format; "" for an array.
      quantization: tables of a JPEG file, by number; None for other formats.
      as_stored: whether it is a JPEG file in which every program sees `pixels`: upright sRGB.
    """

    pixels: Image.Image
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    format: str = ""
    quantization: Mapping[int, list[int]] | None = None
    as_stored: bool = False

    def srgb(self) -> Image.Image:
        """The pixels in sRGB, for the models; `pixels` itself if they are."""
        return colour_profiles.to_srgb(self.pixels, self.profile)

    def from_srgb(self, picture: Image.Image) -> Image.Image:
        """An sRGB picture, of any size, in this photograph's colour space."""
        return colour_profiles.from_srgb(picture, self.profile)


def read_photograph(
    source: PictureSource, name: str = "", *, at_least: tuple[int, int] | None = None
) -> Photograph:
    """Decodes a picture of any mode that Pillow opens.

    Transparency is dropped, and of several frames the first is read. A profile that only describes
    greys or CMYK, or that has no way back from sRGB, is applied here: the result is sRGB.

    Args:
      source: the picture.
      name: its name in messages; "": its path.
      at_least: width and height that suffice: a larger JPEG file is decoded at 1/2, 1/4 or 1/8.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a readable picture, or its values are in no known range.
    """
    with opened(source, name) as picture:
        notes = frame_notes(picture)
        decode(picture, at_least)
        orientation, note = stored_orientation(picture)
        notes += [note] * bool(note)
        if has_transparency(picture):
            notes.append("its transparency is ignored")
        profile = picture.info.get("icc_profile") or None
        pixels, kept, note = _in_rgb(picture, profile)
        notes += [note] * bool(note)
        pixels = upright(pixels, orientation)
        if pixels is picture:
            pixels = pixels.copy()
        pixels.info = {}
        return Photograph(
            pixels,
            kept,
            tuple(notes),
            picture.format or "",
            getattr(picture, "quantization", None),
            (picture.format, picture.mode, orientation) == ("JPEG", "RGB", 1)
            and (profile is None or (kept is not None and colour_profiles.is_srgb(kept))),
        )


def read_picture(
    source: PictureSource, name: str = "", *, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """The pixels of `read_photograph` in sRGB; its notes are logged, once per name.

    Raises:
      FileNotFoundError, ValueError: as `read_photograph`.
    """
    photograph = read_photograph(source, name, at_least=at_least)
    for note in photograph.notes:
        warn_once(f"{shown_name(source, name)}: {note}")
    return photograph.srgb()


def frame_notes(picture: Image.Image) -> list[str]:
    """A note about a picture of several frames or pages."""
    # Photoshop's further frames are layers of the one picture.
    if picture.format == "PSD":
        return []
    with as_value_errors():
        if not getattr(picture, "is_animated", False):
            return []
        place = "the first" if picture.tell() == 0 else f"frame {picture.tell() + 1}"
        return [f"only {place} of its {picture.n_frames} frames is read"]


def has_transparency(picture: Image.Image) -> bool:
    """Whether a decoded picture is not opaque everywhere."""
    last = picture.getbands()[-1]
    if last in ("A", "a"):
        return picture.getchannel(last).getextrema()[0] < 255
    if "transparency" not in picture.info or is_wide(picture):
        return False
    return picture.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _in_rgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None, str]:
    """(pixels of mode RGB, their profile, note) of a decoded picture."""
    mode = picture.mode
    without = "" if mode != "CMYK" else "its CMYK colours have no profile: they are approximate"
    if profile is None or mode == "LAB":
        return rgb_of(picture), None, without
    space = colour_profiles.space_of(profile)
    if space == "RGB" and mode != "CMYK":
        if colour_profiles.is_usable(profile, "RGB", both_ways=True):
            return rgb_of(picture), profile, ""
        if colour_profiles.is_usable(profile, "RGB", both_ways=False):
            pixels = colour_profiles.to_srgb(rgb_of(picture), profile)
            return pixels, None, "its colour profile has no way back: the result is sRGB"
    elif space == "L" and (mode in ("1", "L", "LA", "La") or is_wide(picture)):
        grey = greys_of_wide(picture) if is_wide(picture) else rgb_of(picture).getchannel("R")
        if colour_profiles.is_usable(profile, "L", both_ways=False):
            return colour_profiles.to_srgb(grey, profile), None, ""
    elif space == mode == "CMYK" and colour_profiles.is_usable(profile, mode, both_ways=False):
        note = "its CMYK colours become sRGB, and so does the result"
        return colour_profiles.to_srgb(cmyk_of(picture), profile), None, note
    kind = "is damaged" if space is None else f"is for {space} pixels, not for {mode}"
    return rgb_of(picture), None, f"its colour profile {kind}, and is ignored"
