"""cuDNN's flash attention, for GPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

WIDEST_HEAD = 128
"""On every GPU that has it."""

LEAST_KEYS = 128
"""Shorter sequences gain nothing."""


def suits_cudnn(q: Float[Array, "b lq h d"], k: Float[Array, "b lk g d"]) -> bool:
    """Half precision, narrow heads, sequences that are worth it."""
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    narrow = q.shape[3] <= WIDEST_HEAD and q.shape[3] % 8 == 0
    return half and narrow and k.shape[1] >= LEAST_KEYS


def cudnn_attention(
    q: Float[Array, "b lq h d"],
    k: Float[Array, "b lk g d"],
    v: Float[Array, "b lk g d"],
    *,
    mask: Bool[Array, "#b #h #lq lk"] | None = None,
    bias: Float[Array, "#b #h #lq lk"] | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    implementation: str = "cudnn",
) -> Float[Array, "b lq h d"]:
    """Equal to `attention`.

    With a mask or a bias, cuDNN has gradients for even numbers of queries and of keys only: where
    one is odd, a query that is cut off again or a key that nobody sees is added.

    Args:
      q, k, v, mask, bias, scale, is_causal: as of `attention`.
      implementation: of `jax.nn.dot_product_attention`; "xla" where there is no cuDNN, as in tests.
    """
    queries, keys = q.shape[1], k.shape[1]
    more_queries, more_keys = queries % 2, keys % 2
    if (more_queries or more_keys) and not (mask is None and bias is None):
        sees = jnp.ones((1, 1, 1, keys), jnp.bool_) if mask is None else mask
        mask = _widen(sees, queries, more_queries, more_keys)
        bias = None if bias is None else _widen(bias, queries, more_queries, more_keys)
        q = jnp.pad(q, ((0, 0), (0, more_queries), (0, 0), (0, 0)))
        k, v = (jnp.pad(x, ((0, 0), (0, more_keys), (0, 0), (0, 0))) for x in (k, v))
    mixed = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        bias=bias,
        scale=scale,
        is_causal=is_causal,
        implementation=implementation,
    )
    return mixed[:, :queries]


def _widen(
    x: Shaped[Array, "#b #h #lq lk"], queries: int, more_queries: int, more_keys: int
) -> Shaped[Array, "#b #h lq2 lk2"]:
    """`x` for every query and for some more of both: 0, or False, for those."""
    x = jnp.broadcast_to(x, (*x.shape[:2], queries, x.shape[3]))
    return jnp.pad(x, ((0, 0), (0, 0), (0, more_queries), (0, more_keys)))
