"""Attention one block of queries at a time: only one block's logits are in memory.

For long sequences without a fused kernel: the VAE's mid block (16,384 tokens at 1024x1024, one head
of 512 channels) on every platform, and everything on CPU.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LOGIT_BYTES = 256 * 2**20
"""Maximum size of the float32 logits of one sample, all heads; also the maximum of a block."""


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
    """Equal to `attention`; the backward pass recomputes the logits of each block.

    Args:
      q, k, v, mask, scale, is_causal: as in `attention`.
      block: queries per block; None: as many as `LOGIT_BYTES` allows.
    """
    length, keys = q.shape[1], k.shape[1]
    if block is None:
        row = 4 * q.shape[2] * keys
        blocks = math.ceil(row * length / LOGIT_BYTES)
        block = math.ceil(length / blocks)
    blocks = math.ceil(length / block)
    # Padding queries attend to everything; their outputs are dropped.
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
    """The combination of mask and causal mask."""
    if not is_causal:
        return mask
    causal = jnp.tri(length, keys, dtype=jnp.bool_)[None, None]
    return causal if mask is None else causal & mask
