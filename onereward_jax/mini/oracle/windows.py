"""Grids sampled from an image around a box, at multiple shifts and sizes.

A drawn object may be a little off its true place: templates are compared with every window, and the
best match counts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

GRID = 16
SHIFTS = (-0.12, 0.0, 0.12)
SIZES = (0.85, 1.0, 1.2)
"""Offsets and sizes of the windows relative to the box."""


def sample_windows(
    values: Float[np.ndarray, "h w c"], box: tuple[int, int, int, int], rows: int, columns: int
) -> Float32[np.ndarray, "m rows columns c"]:
    """Bilinear samples of `values` on a rows × columns grid over each of the m = 27 windows.

    The windows are `box` = (y0, x0, y1, x1), shifted and resized; beyond the picture the border
    repeats. The first axis runs over sizes, then vertical, then horizontal shifts.
    """
    y0, x0, y1, x1 = box
    sizes = np.array(SIZES)[:, None]
    shifts = np.array(SHIFTS)[None, :]

    def positions(start: int, stop: int, count: int) -> Float[np.ndarray, "sizes shifts count"]:
        length, centre = stop - start, (start + stop) / 2
        offsets = ((np.arange(count) + 0.5) / count - 0.5) * length
        return (centre + shifts * length - 0.5)[..., None] + sizes[..., None] * offsets

    y, x = positions(y0, y1, rows), positions(x0, x1, columns)
    by_row = _interpolate(values, y, axis=0)  # [sizes, shifts, rows, w, c]
    windows = []
    for size in range(len(SIZES)):
        by_column = _interpolate(by_row[size], x[size], axis=2)  # [sy, rows, sx, columns, c]
        windows.append(
            by_column.transpose(0, 2, 1, 3, 4).reshape(-1, rows, columns, values.shape[-1])
        )
    return np.concatenate(windows).astype(np.float32)


def square(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The smallest square of the same centre that contains `box`."""
    y0, x0, y1, x1 = box
    side = max(y1 - y0, x1 - x0)
    y, x = (y0 + y1 - side) // 2, (x0 + x1 - side) // 2
    return y, x, y + side, x + side


def _interpolate(
    values: Float[np.ndarray, "..."], positions: Float[np.ndarray, "..."], axis: int
) -> Float[np.ndarray, "..."]:
    """Linear interpolation along `axis`, which is replaced by the axes of `positions`."""
    last = values.shape[axis] - 1
    clipped = np.clip(positions, 0, last)
    low = np.minimum(clipped.astype(int), max(last - 1, 0))
    fraction = clipped - low
    shape = (1,) * axis + positions.shape + (1,) * (values.ndim - axis - 1)
    fraction = fraction.reshape(shape).astype(np.float32)
    below = np.take(values, low, axis)
    above = np.take(values, np.minimum(low + 1, last), axis)
    return below + fraction * (above - below)
