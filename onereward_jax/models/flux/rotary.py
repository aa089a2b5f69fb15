"""Rotary positions over (time, row, column) ids, interleaved pairs as in the original FLUX."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

THETA = 10000.0


class RotaryTable(NamedTuple):
    """Cosines and signed sines, one per position s and channel d of a head.

    A pair (x₀, x₁) becomes (x₀ cos − x₁ sin, x₁ cos + x₀ sin). The other element of a pair is read
    by a roll along the channels, by -1 or +1. So there are two sine tables, each zero where the
    other applies: no gather, no reshape to pairs.
    """

    cos: Float[Array, "s d"]
    sin_next: Float[Array, "s d"]
    sin_previous: Float[Array, "s d"]


def rotary_table(ids: Num[Array, "s axes"], axes_dims: tuple[int, ...]) -> RotaryTable:
    """The table for token positions `ids`, in float32.

    Args:
      ids: position of each token along each axis, in tokens.
      axes_dims: channels of a head given to each axis.
    """
    angles = []
    for axis, dim in enumerate(axes_dims):
        frequencies = THETA ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
        position = ids[:, axis, None].astype(jnp.float32)
        angles.append(position * frequencies.astype(np.float32))
    angle = jnp.repeat(jnp.concatenate(angles, axis=-1), 2, axis=-1)
    first_of_pair = np.arange(angle.shape[-1]) % 2 == 0
    sin = jnp.sin(angle)
    return RotaryTable(
        cos=jnp.cos(angle),
        sin_next=jnp.where(first_of_pair, -sin, 0.0),
        sin_previous=jnp.where(first_of_pair, 0.0, sin),
    )


def apply_rotary(x: Float[Array, "b s h d"], table: RotaryTable) -> Float[Array, "b s h d"]:
    """Rotates queries or keys `x` by their positions, in float32; returns the dtype of x."""
    cos, sin_next, sin_previous = (part[:, None, :] for part in table)
    wide = x.astype(jnp.float32)
    turned = (
        wide * cos
        + jnp.roll(wide, -1, axis=-1) * sin_next
        + jnp.roll(wide, 1, axis=-1) * sin_previous
    )
    return turned.astype(x.dtype)
