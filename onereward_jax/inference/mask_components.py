"""The separate areas of a mask.

Single letters: h, w height and width in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from onereward_jax.data.boxes import Box, bounding_box

COARSE = 1024
"""Side of the scaled-down mask in which areas are told apart, so that a photograph of any size
takes the same memory."""

MOST = 64
"""Areas that are edited one by one; more are specks."""


@dataclasses.dataclass(frozen=True)
class MaskArea:
    """One area.

    Attributes:
      box: around its pixels, (y0, x0, y1, x1) in the whole mask.
      edited: its pixels within `box`, without those of other areas.
    """

    box: Box
    edited: Bool[np.ndarray, "h w"]

    def within(self, left: int, top: int, right: int, bottom: int) -> Bool[np.ndarray, "h w"]:
        """The area in a window that contains it."""
        y0, x0, y1, x1 = self.box
        return np.pad(self.edited, ((y0 - top, bottom - y1), (x0 - left, right - x1)))


def whole_area(edited: Bool[np.ndarray, "h w"]) -> MaskArea:
    """All that is masked, as one area; the mask must not be empty."""
    return _boxed(edited, (0, 0))


def separate_areas(edited: Bool[np.ndarray, "h w"], near: int) -> Iterator[MaskArea]:
    """The areas of a mask, from top to bottom.

    Args:
      edited: where the mask is white.
      near: areas closer than about so many pixels count as one.

    Raises:
      ValueError: there are more than `MOST`.
    """
    height, width = edited.shape
    step = -(-max(height, width) // COARSE)
    padded = np.pad(edited, ((0, -height % step), (0, -width % step)))
    coarse = padded.reshape(len(padded) // step, step, -1, step).any((1, 3))
    grown = ndimage.distance_transform_edt(~coarse) <= near / 2 / step
    labels, count = ndimage.label(grown, np.ones((3, 3)))
    if count > MOST:
        raise ValueError(
            f"the mask has {count} separate areas, at most {MOST} can be edited one by one: "
            "edit them together, or remove its specks"
        )
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        own = (labels[rows, columns] == number) & coarse[rows, columns]
        part = edited[
            rows.start * step : rows.stop * step, columns.start * step : columns.stop * step
        ]
        fine = own.repeat(step, 0).repeat(step, 1)[: part.shape[0], : part.shape[1]]
        yield _boxed(part & fine, (rows.start * step, columns.start * step))


def _boxed(edited: Bool[np.ndarray, "h w"], corner: tuple[int, int]) -> MaskArea:
    y0, x0, y1, x1 = bounding_box(edited)
    box = (corner[0] + y0, corner[1] + x0, corner[0] + y1, corner[1] + x1)
    return MaskArea(box, edited[y0:y1, x0:x1])
