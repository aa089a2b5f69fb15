"""Named random streams that depend on (seed, name, step) only, never on a carried key.

A resumed run therefore draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import zlib

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray


def stream(
    seed: int | PRNGKeyArray, name: str, step: int | Int[Array, ""] | None = None
) -> PRNGKeyArray:
    """The key of stream `name` at `step`.

    Args:
      seed: an integer seed or an existing key.
      name: purpose of the numbers, e.g. "policy_noise". Different names give independent streams.
      step: training step, traced or not; None for draws made once.
    """
    key = key_of(seed) if isinstance(seed, int) else seed
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)


def key_of(seed: int) -> PRNGKeyArray:
    """The key of a seed of up to 64 bits; JAX's own takes 32 of them."""
    key = jax.random.key(seed % 2**32)
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator that depends on the seed and the names only.

    Args:
      seed: the seed of the run.
      names: purpose and subject of the numbers, e.g. "candidate", a triplet's name, an index.
    """
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))
