"""Sheets of edited scenes: source with the mask outlined, base, policy, truth; scores below."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

COLUMNS = ("source and mask", "base", "policy", "truth")

OUTLINE, WEIGHT = (232, 30, 120), 2
"""Colour and pixels of the line around a mask."""

GAP, BETWEEN, LINE, SMALL, LARGE = 4, 10, 18, 12, 14
"""Pixels: between pictures, between scenes, height of a line, sizes of its letters."""

PAPER, INK, FAINT = (255, 255, 255), (40, 40, 40), (120, 120, 120)

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An edited scene.

    Attributes:
      source, base, policy, truth: before the edit, the results of both editors, the ground truth.
      mask: not 0 where the scene is edited.
      lines: texts below the pictures, the first in the colour of ink.
    """

    source: Pixels
    mask: UInt8[np.ndarray, "h w"]
    base: Pixels
    policy: Pixels
    truth: Pixels
    lines: tuple[str, ...]


def outlined(pixels: Pixels, mask: UInt8[np.ndarray, "h w"], factor: int) -> Image.Image:
    """A picture enlarged by `factor`, each pixel a square, with the inner border of its mask."""
    area = np.kron(mask > 0, np.ones((factor, factor), bool))
    # What lies outside of the picture counts as outside of the mask: extensions end there.
    inside = binary_erosion(area, iterations=WEIGHT, border_value=0)
    drawn = np.array(enlarged(pixels, factor))
    drawn[area & ~inside] = OUTLINE
    return Image.fromarray(drawn)


def enlarged(pixels: Pixels, factor: int) -> Image.Image:
    """A picture with a square of `factor` x `factor` for each pixel: nothing is smoothed."""
    height, width = pixels.shape[:2]
    larger = (width * factor, height * factor)
    return Image.fromarray(pixels).resize(larger, Image.Resampling.NEAREST)


def sheet(groups: Mapping[str, Sequence[Scene]], factor: int) -> Image.Image:
    """All scenes below each other, each group under its heading, equal columns.

    Raises:
      ValueError: there is no scene.
    """
    scenes = [scene for group in groups.values() for scene in group]
    if not scenes:
        raise ValueError("a sheet needs at least one scene")
    height, width = (side * factor for side in scenes[0].source.shape[:2])
    lines = sum(len(scene.lines) for scene in scenes) + len(groups) + 1
    tall = len(scenes) * (height + BETWEEN) + lines * LINE + (len(groups) - 1) * BETWEEN
    canvas = Image.new("RGB", (len(COLUMNS) * (width + GAP) - GAP, tall), PAPER)
    draw, y = ImageDraw.Draw(canvas), 0
    for column, name in enumerate(COLUMNS):
        draw.text((column * (width + GAP), y), name, fill=FAINT, font=_font("DejaVuSans", SMALL))
    y += LINE
    for heading, group in groups.items():
        draw.text((0, y), heading, fill=INK, font=_font("DejaVuSans-Bold", LARGE))
        y += LINE
        for scene in group:
            shown = (
                outlined(scene.source, scene.mask, factor),
                *(enlarged(one, factor) for one in (scene.base, scene.policy, scene.truth)),
            )
            for column, picture in enumerate(shown):
                canvas.paste(picture, (column * (width + GAP), y))
            y += height
            for number, line in enumerate(scene.lines):
                colour = FAINT if number else INK
                draw.text((0, y + 2), line, fill=colour, font=_font("DejaVuSans", SMALL))
                y += LINE
            y += BETWEEN
        y += BETWEEN
    return canvas


def beside(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets side by side, from the top."""
    gap = 5 * GAP
    width = sum(one.width for one in sheets) + gap * (len(sheets) - 1)
    canvas = Image.new("RGB", (width, max(one.height for one in sheets)), PAPER)
    x = 0
    for one in sheets:
        canvas.paste(one, (x, 0))
        x += one.width + gap
    return canvas


@functools.cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """One of matplotlib's typefaces, which has arrows."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(path), size)
