"""Noise seeds of 64 bits, split into the two 32-bit parts that JAX's keys take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int32, UInt32

from onereward_jax.inference.batch_arguments import as_integer

LEAST, MOST = -(2**63), 2**64 - 1
"""Range of a seed: signed and unsigned numbers of 64 bits. As in torch, -1 is 2**64 - 1."""


class SeedParts(NamedTuple):
    """Seeds as low + 2**32 * high, modulo 2**64; different seeds have different parts."""

    low: Int32[np.ndarray | Array, "b"]
    high: UInt32[np.ndarray | Array, "b"]


def seed_numbers(seed: Any, batch: int) -> list[int]:
    """The seed of each sample.

    Args:
      seed: a number s of any integer type, for s, s + 1, ...; or one per sample (list or array).
      batch: number of samples.

    Raises:
      ValueError: a seed is no integer or has more than 64 bits, or there are too few or too many.
    """
    if np.ndim(seed) == 0:
        first = as_integer(seed, "seed")
        seeds = [first + index for index in range(batch)]
    else:
        seeds = [as_integer(one, "seed") for one in seed]
        if len(seeds) != batch:
            raise ValueError(f"seed has {len(seeds)} numbers for a batch of {batch}")
    check_seeds(seeds)
    return seeds


def check_seeds(seeds: Iterable[int]) -> None:
    """Raises ValueError unless every seed fits into 64 bits."""
    for seed in seeds:
        if not LEAST <= seed <= MOST:
            raise ValueError(f"seed is {seed}, which does not fit into 64 bits")


def seed_parts(seeds: Iterable[int]) -> SeedParts:
    """The parts of seeds that `check_seeds` accepts; high is 0 for those that fit into int32."""
    seeds = list(seeds)
    low = [(seed + 2**31) % 2**32 - 2**31 for seed in seeds]
    high = [(seed - part) // 2**32 % 2**32 for seed, part in zip(seeds, low)]
    return SeedParts(np.array(low, np.int32), np.array(high, np.uint32))
