"""Attention one block of queries after the other: the logits of a block are all that is held.

For sequences whose logits are large where no fused kernel serves: the middle of the VAE (16,384
tokens at 1024x1024, one head of 512 channels) on every platform, everything else on CPU.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LOGIT_BYTES = 256 * 2**20
"""Float32 logits of one sample, all heads, from which they are not formed at once; and the most
that a block has."""


def blockwise_attention(
    q: Float[Array, "b lq h d"],
    k: Float[Array, "b lk g d"],
    v: Float[Array, "b lk g d"],
    *,
    mask: Bool[Array, "#b #h #lq lk"] | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    block: int | None = None,
) -> Float[Array, "b lq h d"]:
    """Equal to `attention`; the backward pass computes the logits of each block again.

    Args:
      q, k, v, mask, scale, is_causal: as of `attention`.
      block: queries per block; left out, as many as `LOGIT_BYTES` allows.
    """
    length, keys = q.shape[1], k.shape[1]
    if block is None:
        row = 4 * q.shape[2] * keys
        blocks = math.ceil(row * length / LOGIT_BYTES)
        block = math.ceil(length / blocks)
    blocks = math.ceil(length / block)
    # The queries behind the last one see everything and are cut off.
    overhang = ((0, 0), (0, blocks * block - length), (0, 0), (0, 0))
    parts = jnp.pad(q, overhang).reshape(q.shape[0], blocks, block, *q.shape[2:]).swapaxes(0, 1)
    sees = _visible(mask, keys, length, is_causal)
    if sees is not None and sees.shape[2] > 1:
        padded = jnp.pad(sees, ((0, 0), (0, 0), overhang[1], (0, 0)), constant_values=True)
        sees = jnp.moveaxis(padded.reshape(*sees.shape[:2], blocks, block, keys), 2, 0)
    elif sees is not None:
        sees = jnp.broadcast_to(sees, (blocks, *sees.shape))

    @jax.checkpoint
    def attend(part: tuple[Array, Array | None]) -> Array:
        queries, visible = part
        return jax.nn.dot_product_attention(
            queries, k, v, mask=visible, scale=scale, implementation="xla"
        )

    mixed = jax.lax.map(attend, (parts, sees)).swapaxes(0, 1)
    return mixed.reshape(q.shape[0], blocks * block, *q.shape[2:])[:, :length]


def _visible(
    mask: Bool[Array, "#b #h #lq lk"] | None, keys: int, length: int, is_causal: bool
) -> Bool[Array, "#b #h #lq lk"] | None:
    """What queries see: mask and causality together."""
    if not is_causal:
        return mask
    causal = jnp.tri(length, keys, dtype=jnp.bool_)[None, None]
    return causal if mask is None else causal & mask
