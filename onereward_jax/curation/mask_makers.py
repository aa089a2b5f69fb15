"""Masks for photographs: boxes, free-form strokes, borders, grown outlines.

All are boolean [height, width], True where the picture is edited; none covers all of the picture,
or nothing. An area is a share of the picture's.

Single letters: h, w height and width in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw
from scipy import ndimage

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.boxes import Box, bounding_box

Mask = Bool[np.ndarray, "h w"]
Range = tuple[float, float]

ELONGATED = 2.0
"""Largest ratio of the sides of a random box, relative to the picture's."""

DRAWING_SIDE = 512
"""Strokes are drawn on a canvas of this longer side, then enlarged."""

BRUSH = (0.06, 0.14)
"""Range of the width of a brush, as a share of the canvas's shorter side."""

MOST_EXTENDED = 0.6
"""Largest total width of two opposite borders, as a share of that side of the picture."""


def random_box(rng: np.random.Generator, size: Size, area: Range) -> Mask:
    """A box inside the picture.

    Args:
      rng: source of all draws.
      size: height and width of the picture in pixels.
      area: range of its area, up to rounding to a pixel.
    """
    height, width = size
    share = rng.uniform(*area)
    stretch = ELONGATED ** rng.uniform(-1, 1)
    stretch = min(max(stretch, share), 1 / share)  # both sides stay inside
    rows = min(max(1, round(height * math.sqrt(share * stretch))), height)
    columns = min(max(1, round(width * math.sqrt(share / stretch))), width)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return box_mask(size, (int(top), int(left), int(top) + rows, int(left) + columns))


def box_mask(size: Size, box: Box) -> Mask:
    """The box (y0, x0, y1, x1), clipped to the picture."""
    mask = np.zeros(size, bool)
    y0, x0, y1, x1 = (max(0, side) for side in box)
    mask[y0:y1, x0:x1] = True
    return mask


def random_strokes(rng: np.random.Generator, size: Size, area: Range) -> Mask:
    """Brush strokes: a path of joined segments that turns at random, until its area is reached.

    Args:
      rng: source of all draws.
      size: height and width of the picture in pixels.
      area: range of the masked area. A segment that would exceed it is not drawn.
    """
    scale = DRAWING_SIDE / max(size)
    height, width = (max(16, round(side * scale)) for side in size)
    canvas = Image.new("L", (width, height))
    goal, most = rng.uniform(*area), area[1]
    brush = rng.uniform(*BRUSH) * min(height, width)
    brush = min(brush, math.sqrt(most * height * width) / 2)
    x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height
    angle = rng.uniform(0, 2 * math.pi)
    covered = 0.0
    for _ in range(1000):
        if covered >= goal:
            break
        angle += rng.normal(0, 0.8)
        length = rng.uniform(0.5, 2.5) * brush
        to_x, to_y = x + length * math.cos(angle), y + length * math.sin(angle)
        if not (0.05 * width < to_x < 0.95 * width and 0.05 * height < to_y < 0.95 * height):
            angle += math.pi / 2
            continue
        larger = canvas.copy()
        _segment(larger, (x, y, to_x, to_y), brush)
        after = float(np.asarray(larger, np.float32).mean() / 255)
        if after > most:
            break
        canvas, covered, x, y = larger, after, to_x, to_y
    drawn = canvas.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(drawn) >= 128


def _segment(canvas: Image.Image, ends: tuple[float, float, float, float], brush: float) -> None:
    """A line with round ends."""
    draw, radius = ImageDraw.Draw(canvas), brush / 2
    draw.line(ends, fill=255, width=max(1, round(brush)))
    for x, y in (ends[:2], ends[2:]):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def random_borders(rng: np.random.Generator, size: Size, border: Range, *, all_sides: bool) -> Mask:
    """The area that an extension paints: borders on all sides, or on one to three of them.

    Args:
      rng: source of all draws.
      size: height and width of the picture in pixels.
      border: range of a border's width, as a share of the picture's shorter side.
      all_sides: whether all four sides are extended.
    """
    height, width = size
    count = 4 if all_sides else int(rng.integers(1, 4))
    shares = np.zeros(4)  # top, bottom, left, right
    shares[rng.permutation(4)[:count]] = rng.uniform(*border, count)
    widths = shares * min(size)
    for pair, side in ((widths[:2], height), (widths[2:], width)):
        pair *= min(1.0, MOST_EXTENDED * side / max(pair.sum(), 1e-6))
    top, bottom, left, right = (max(1, round(float(one))) if one else 0 for one in widths)
    mask = np.ones(size, bool)
    mask[top : height - bottom, left : width - right] = False
    return mask


def grown_outline(mask: Mask, share: float) -> Mask:
    """The mask grown by a round brush, so that it covers edges and soft shadows.

    Args:
      mask: at least one pixel.
      share: of the picture's shorter side: the radius of the brush.
    """
    height, width = mask.shape
    radius = round(share * min(height, width))
    if radius < 1:
        return mask.copy()
    y0, x0, y1, x1 = bounding_box(mask)
    y0, x0 = max(0, y0 - radius), max(0, x0 - radius)
    y1, x1 = min(height, y1 + radius), min(width, x1 + radius)
    grown = np.zeros_like(mask)
    distances = ndimage.distance_transform_edt(~mask[y0:y1, x0:x1])
    grown[y0:y1, x0:x1] = distances <= radius
    return grown


def grown_box(size: Size, box: Box, share: float) -> Mask:
    """The box with each edge moved outwards, clipped to the picture.

    Args:
      size: height and width of the picture in pixels.
      box: (y0, x0, y1, x1), half-open.
      share: of the picture's shorter side: how far.
    """
    by = round(share * min(size))
    y0, x0, y1, x1 = box
    return box_mask(size, (y0 - by, x0 - by, y1 + by, x1 + by))
