"""Masks as users draw them: boxes, outlines and brush strokes around an object, borders.

All are boolean [size, size], True where the image is edited. A box is
(y0, x0, y1, x1) in pixels, ends excluded.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from onereward_jax.data.boxes import Box

Mask = Bool[np.ndarray, "size size"]

BORDER_SHARE = (0.20, 0.45)
"""Range of the width of an extended border, as a share of the image's side."""

MOST_EXTENDED = 0.6
"""Largest total width of two opposite borders, as a share of the image's side."""


def box_mask(size: int, box: Box) -> Mask:
    """The box, clipped to the picture."""
    y0, x0, y1, x1 = box
    mask = np.zeros((size, size), bool)
    mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    return mask


def grow(rng: np.random.Generator, box: Box, least: int, most: int) -> Box:
    """The box with each edge moved outwards by `least` to `most` pixels."""
    top, left, bottom, right = rng.integers(least, most + 1, 4).tolist()
    y0, x0, y1, x1 = box
    return y0 - top, x0 - left, y1 + bottom, x1 + right


def place(size: int, shape: Bool[np.ndarray, "h w"], y: int, x: int) -> Mask:
    """`shape` with its upper left corner at (y, x), clipped to the picture."""
    mask = np.zeros((size, size), bool)
    height, width = shape.shape
    inside = mask[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    inside[...] = shape[max(0, -y) :, max(0, -x) :][: inside.shape[0], : inside.shape[1]]
    return mask


def stroke_mask(rng: np.random.Generator, size: int, box: Box) -> Mask:
    """A thick zigzag brush stroke over the box. It need not cover all of it."""
    y0, x0, y1, x1 = grow(rng, box, 0, size // 32)
    brush = int(rng.integers(size // 7, size // 5 + 1))
    rows = max(2, -(-(y1 - y0) // max(1, brush * 3 // 4)))
    wobble = rng.normal(0, size / 40, (2, 2 * rows))
    xs = np.tile([x0 + brush // 3, x1 - brush // 3], rows) + wobble[0]
    ys = np.repeat(np.linspace(y0 + brush // 3, y1 - brush // 3, rows), 2) + wobble[1]
    if rng.random() < 0.5:
        # Vertical instead of horizontal strokes: the same path on the transposed box.
        xs, ys = x0 + (ys - y0) * (x1 - x0) / (y1 - y0), y0 + (xs - x0) * (y1 - y0) / (x1 - x0)
    path = list(zip(xs.tolist(), ys.tolist()))
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    draw.line(path, fill=1, width=brush)
    for x, y in path:
        draw.ellipse((x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2), fill=1)
    return np.asarray(canvas) > 0


def border_mask(rng: np.random.Generator, size: int) -> Mask:
    """One to four borders, each `BORDER_SHARE` of the side: the area that an extension paints."""
    count = 1 + int(np.searchsorted((0.4, 0.75, 0.9), rng.random()))
    least, most = BORDER_SHARE
    share = np.zeros(4)  # top, bottom, left, right
    share[rng.permutation(4)[:count]] = least + (most - least) * rng.random(count)
    for pair in (share[:2], share[2:]):
        pair *= min(1.0, MOST_EXTENDED / max(pair.sum(), 1e-6))
    top, bottom, left, right = np.round(share * size).astype(int).tolist()
    mask = np.ones((size, size), bool)
    mask[top : size - bottom, left : size - right] = False
    return mask
