"""Boxes around masked pixels: (y0, x0, y1, x1) in pixels, half-open."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

Box = tuple[int, int, int, int]


def bounding_box(mask: Bool[np.ndarray, "h w"]) -> Box:
    """The smallest box around the masked pixels; the mask must not be empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
