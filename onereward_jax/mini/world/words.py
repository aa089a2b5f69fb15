"""Words and the font faces they are drawn in: the text-rendering part of the fill task."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

WORDS: tuple[str, ...] = (
    *("BAR", "BUS", "CAR", "HOT", "ICE", "JAZZ", "KEY", "SPA", "SUN", "TEA", "ZOO", "FUN"),
    *("BIKE", "BOOK", "CAFE", "CITY", "EXIT", "FISH", "GOLD", "OPEN", "PARK", "SALE", "STAR"),
    *("TAXI", "LOVE", "FREE"),
)
"""Words of both splits, short enough to be readable in 64 pixels."""

FACES: tuple[str, ...] = (
    "DejaVuSans-Bold",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
)
"""Faces of matplotlib's fonts (Bitstream Vera licence); the first is used twice as often."""

DRAWN_SIZE = 96


@functools.cache
def word_picture(
    word: str, face: str, width: int, height: int
) -> UInt8[np.ndarray, "height width"]:
    """Ink coverage per pixel, 0 to 255, of `word` fitted tightly to the size. Read-only."""
    ink = np.array(_drawn(word, face).resize((width, height), Image.LANCZOS))
    ink.flags.writeable = False
    return ink


@functools.cache
def _drawn(word: str, face: str) -> Image.Image:
    font = _font(face)
    left, top, right, bottom = font.getbbox(word)
    canvas = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).text((-left, -top), word, font=font, fill=255)
    return canvas.crop(canvas.getbbox())


@functools.cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(path), DRAWN_SIZE)
