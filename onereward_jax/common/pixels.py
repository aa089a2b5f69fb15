"""Pictures as bytes and as the networks see them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float32, UInt8


def from_uint8(pixels: np.typing.ArrayLike) -> Float32[np.ndarray, "..."]:
    """0 ... 255 to [-1, 1]."""
    return np.asarray(pixels, np.float32) / 127.5 - 1.0


def to_uint8(images: Float32[Array | np.ndarray, "..."]) -> UInt8[Array | np.ndarray, "..."]:
    """[-1, 1] to 0 ... 255, rounded; a jax array, traced or not, stays one."""
    xp = images.__array_namespace__()
    return xp.clip(xp.rint((images + 1.0) * 127.5), 0, 255).astype(xp.uint8)
