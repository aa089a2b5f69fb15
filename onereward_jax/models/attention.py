"""The one door to attention kernels."""

from __future__ import annotations

import jax
from jaxtyping import Array, Bool, Float


def attention(
    q: Float[Array, "b lq h d"],
    k: Float[Array, "b lk g d"],
    v: Float[Array, "b lk g d"],
    *,
    mask: Bool[Array, "#b #h #lq lk"] | None = None,
    bias: Float[Array, "#b #h #lq lk"] | None = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Float[Array, "b lq h d"]:
    """Softmax(q kᵀ · scale + bias) v, with the softmax in float32.

    Args:
      q, k, v: queries, keys, values; h may be a multiple of g (grouped-query attention).
      mask: True where a query may look at a key.
      bias: added to the logits (T5's relative positions).
      scale: default 1/√d.
      is_causal: query i sees keys 0..i.
    """
    return jax.nn.dot_product_attention(
        q, k, v, bias=bias, mask=mask, scale=scale, is_causal=is_causal, implementation="xla"
    )
