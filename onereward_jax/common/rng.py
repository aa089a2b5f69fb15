"""Named random streams that depend on (seed, name, step) only, never on a carried key.

A resumed run therefore draws exactly what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray


def stream(
    seed: int | PRNGKeyArray, name: str, step: int | Int[Array, ""] | None = None
) -> PRNGKeyArray:
    """The key of stream `name` at `step`.

    Args:
      seed: an integer seed or an existing key.
      name: what the numbers are for, e.g. "policy_noise". Different names are independent.
      step: training step, traced or not; left out for draws made once.
    """
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)
