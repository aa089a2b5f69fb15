"""Relative position buckets (Raffel et al., arXiv 1910.10683, section 2.1)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int


def relative_position_buckets(
    length: int, num_buckets: int, max_distance: int
) -> Int[np.ndarray, "q k"]:
    """The bucket in [0, num_buckets) of every (query, key) pair of a sequence, bidirectional.

    Half of the buckets are for keys after the query. In each half, one half is for exact distances,
    the other for distances up to `max_distance` on a logarithmic scale.

    Args:
      length: tokens of the sequence.
      num_buckets: number of buckets.
      max_distance: distance in tokens from which all pairs share the last bucket.
    """
    position = np.arange(length)
    offset = position[None, :] - position[:, None]
    distance = np.abs(offset)
    per_direction = num_buckets // 2
    exact = per_direction // 2
    # float32 as in the original: the truncation below is sensitive at bucket boundaries
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    logarithm = np.log(ratio) / np.float32(math.log(max_distance / exact))
    far = exact + (logarithm * np.float32(per_direction - exact)).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(far, per_direction - 1))
    return bucket + np.where(offset > 0, per_direction, 0)
