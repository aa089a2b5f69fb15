"""Arrays as pictures: [h, w], [h, w, 1], [h, w, 3] or [h, w, 4].

bool         False and True: black and white
integers     0 ... 255; uint16 has the range 0 ... 65535
floats       in [0, 1]; NaN is refused
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from onereward_jax.pictures.eight_bits import BYTE_OF_16_BITS

OVERSHOOT = 0.005
"""Of floats over [0, 1], as resizing leaves it: about a level of 8 bits; clipped."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@runtime_checkable
class AnyArray(Protocol):
    """An array of NumPy, of JAX, or of another library that makes NumPy's of its own."""

    shape: tuple[int, ...]

    def __array__(self) -> np.ndarray:
        """The array as NumPy's."""
        ...


def picture_of_array(array: np.ndarray) -> Image.Image:
    """A picture of mode L, RGB or RGBA.

    Raises:
      ValueError: its shape, dtype or range is not one of a picture.
    """
    shape = array.shape
    if array.ndim not in (2, 3) or 0 in shape or (array.ndim == 3 and shape[2] not in _MODES):
        hint = ""
        if array.ndim == 3 and shape[0] in _MODES:
            hint = "; channels come last"
        elif array.ndim == 4:
            hint = "; pass a batch as a list of pictures"
        raise ValueError(
            f"its shape is {shape}: [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] expected{hint}"
        )
    channels = shape[2] if array.ndim == 3 else 1
    pixels = _bytes_of(array).reshape(shape[:2] if channels == 1 else shape)
    return Image.fromarray(np.ascontiguousarray(pixels), _MODES[channels])


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """Values as uint8; raises ValueError."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        if array.max() == 1:  # of a segmenter: see `mask_reading`
            return array.astype(np.uint8)
        return BYTE_OF_16_BITS[array]
    if kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            raise ValueError(
                f"its {array.dtype} values are from {low} to {high}: 0 to 255 expected, or uint16"
            )
        return array.astype(np.uint8)
    if kind != "f" and array.dtype.name != "bfloat16":
        raise ValueError(f"its dtype is {array.dtype}: real numbers expected")
    array = array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if not (-OVERSHOOT <= low and high <= 1 + OVERSHOOT):  # also NaN
        hint = "; divide by 255" if low >= 0 and 2 < high <= 255 else ""
        raise ValueError(
            f"its floating-point values are from {low:.4g} to {high:.4g}: [0, 1] expected{hint}"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
