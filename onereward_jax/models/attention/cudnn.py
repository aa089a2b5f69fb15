"""cuDNN's flash attention, for GPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

WIDEST_HEAD = 128
"""Maximum head width, on every GPU that supports cuDNN attention."""

LEAST_KEYS = 128
"""Minimum number of keys; shorter sequences are not faster."""


def suits_cudnn(q: Float[Array, "b lq h d"], k: Float[Array, "b lk g d"]) -> bool:
    """Whether cuDNN applies: half precision, narrow heads, long enough sequences."""
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

    With a mask or bias, cuDNN only has gradients for even numbers of queries and keys. Odd lengths
    are padded with a query whose output is dropped, or a key that is masked.

    Args:
      q, k, v, mask, bias, scale, is_causal: as in `attention`.
      implementation: see `jax.nn.dot_product_attention`; "xla" in tests without cuDNN.
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
    """Broadcasts `x` to all queries, and pads queries and keys with 0 (False)."""
    x = jnp.broadcast_to(x, (*x.shape[:2], queries, x.shape[3]))
    return jnp.pad(x, ((0, 0), (0, 0), (0, more_queries), (0, more_keys)))
