"""Packs the suffixes of all dimensions of a sample into one row, without padding between them.

Only one dimension of a task quotes the prompt; the others are short. When packed, four dimensions
cost little more than one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from onereward_jax.reward.query import QueryBatch


class PackedSuffixes(NamedTuple):
    """One row of suffix tokens per sample; padding at the end of the row.

    Attributes:
      ids: token ids.
      dimension: which suffix each token belongs to.
      offset: its index in that suffix.
      last: index of the last token of each dimension's suffix; arbitrary if it has no tokens.
    """

    ids: Int[Array, "b s"]
    dimension: Int[Array, "b s"]
    offset: Int[Array, "b s"]
    last: Int[Array, "b e"]

    def mask(self, real_prefix: Bool[Array, "b lp"]) -> Bool[Array, "b s n"]:
        """Attention mask of the suffix tokens: the real prefix and, causally, their own dimension.

        Padding needs no mask, since no real token comes after it.
        """
        batch, size = self.ids.shape
        same = self.dimension[:, :, None] == self.dimension[:, None, :]
        prefix = jnp.broadcast_to(real_prefix[:, None], (batch, size, real_prefix.shape[1]))
        return jnp.concatenate([prefix, same & np.tri(size, dtype=bool)], axis=-1)


def pack(queries: QueryBatch, size: int) -> PackedSuffixes:
    """Moves all real suffix tokens to the front of one row of `size` tokens.

    Args:
      queries: padded suffixes.
      size: at least the real tokens of any sample; see `QueryLayout.packed_length`.
    """
    batch, _, suffix_length = queries.suffix.shape
    mask = jnp.asarray(queries.suffix_mask)
    order = jnp.argsort(~mask.reshape(batch, -1), axis=1, stable=True)[:, :size]
    ids = jnp.take_along_axis(jnp.asarray(queries.suffix).reshape(batch, -1), order, axis=1)
    ends = jnp.cumsum(jnp.sum(mask, axis=-1), axis=-1) - 1
    last = jnp.clip(ends, 0, order.shape[1] - 1)
    return PackedSuffixes(ids, order // suffix_length, order % suffix_length, last)
