"""Attention of the FLUX blocks: joint over two streams with separate weights, or over one."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from onereward_jax.models.flux.config import FluxConfig
from onereward_jax.models.flux.layers import NORM_EPS, Dense
from onereward_jax.models.flux.rotary import RotaryTable, apply_rotary
from onereward_jax.models.flux.token_order import TokenOrder


class JointAttention(nn.Module):
    """Image and text tokens attend to each other; each stream has its own projections."""

    config: FluxConfig
    order: TokenOrder
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden_states: Float[Array, "b n d"],
        encoder_hidden_states: Float[Array, "b l d"],
        rotary: RotaryTable,
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b l d"]]:
        """Updates of the image and the text stream; `rotary` is in the order of the joined one."""
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        image = _project(hidden_states, self.config, "to_{}", "norm_{}", **kinds)
        text = _project(encoder_hidden_states, self.config, "add_{}_proj", "norm_added_{}", **kinds)
        q, k, v = (self.order.join(*pair) for pair in zip(text, image, strict=True))
        text_mixed, image_mixed = self.order.split(_attend(q, k, v, rotary, self.order))
        output = ("heads", "embed")
        width = self.config.inner_dim
        return (
            Dense(width, output, name="to_out_0", **kinds)(image_mixed),
            Dense(width, output, name="to_add_out", **kinds)(text_mixed),
        )


class SelfAttention(nn.Module):
    """Attention over the joined sequence, without the output projection."""

    config: FluxConfig
    order: TokenOrder
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, hidden_states: Float[Array, "b s d"], rotary: RotaryTable
    ) -> Float[Array, "b s d"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        parts = _project(hidden_states, self.config, "to_{}", "norm_{}", **kinds)
        return _attend(*parts, rotary, self.order)


def _project(
    x: Float[Array, "b s d"],
    config: FluxConfig,
    linear_name: str,
    norm_name: str,
    *,
    dtype: Any,
    param_dtype: Any,
) -> tuple[Float[Array, "b s h k"], Float[Array, "b s h k"], Float[Array, "b s h k"]]:
    """Queries, keys and values per head; queries and keys RMS-normalised over the head."""

    def heads(part: str) -> Float[Array, "b s h k"]:
        flat = Dense(
            config.inner_dim,
            ("embed", "heads"),
            name=linear_name.format(part),
            dtype=dtype,
            param_dtype=param_dtype,
        )(x)
        return flat.reshape(*x.shape[:2], config.num_attention_heads, config.attention_head_dim)

    def norm(part: str) -> nn.RMSNorm:
        return nn.RMSNorm(
            epsilon=NORM_EPS,
            dtype=dtype,
            param_dtype=param_dtype,
            scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("norm",)),
            name=norm_name.format(part),
        )

    return norm("q")(heads("q")), norm("k")(heads("k")), heads("v")


def _attend(
    q: Float[Array, "b s h k"],
    k: Float[Array, "b s h k"],
    v: Float[Array, "b s h k"],
    rotary: RotaryTable,
    order: TokenOrder,
) -> Float[Array, "b s d"]:
    mixed = order.attend(apply_rotary(q, rotary), apply_rotary(k, rotary), v)
    return mixed.reshape(*mixed.shape[:2], -1)
