"""Double-stream and single-stream transformer blocks, each the body of an `nn.scan`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from onereward_jax.models.flux.config import FluxConfig
from onereward_jax.models.flux.joint_attention import JointAttention, SelfAttention
from onereward_jax.models.flux.layers import (
    Dense,
    Modulation,
    TwoPartDense,
    gated_residual,
    modulate,
)
from onereward_jax.models.flux.rotary import RotaryTable
from onereward_jax.models.flux.token_order import TOKEN_HIDDEN, TokenOrder
from onereward_jax.models.layers import constrain

MLP_RATIO = 4

Streams = tuple[Float[Array, "b n d"], Float[Array, "b l d"]]


class FluxTransformerBlock(nn.Module):
    """Joint attention, then an MLP, with separate weights and modulation for image and text."""

    config: FluxConfig
    order: TokenOrder
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, streams: Streams, conditioning: Float[Array, "b d"], rotary: RotaryTable
    ) -> tuple[Streams, None]:
        """Args: streams: (image tokens, text tokens); conditioning: silu of the embedding."""
        image, text = streams
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def modulation(name: str) -> list[Float[Array, "b 1 d"]]:
            return Modulation(6, name=name, **kinds)(conditioning)

        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation("norm1")
        (
            text_shift,
            text_scale,
            text_gate,
            text_mlp_shift,
            text_mlp_scale,
            text_mlp_gate,
        ) = modulation("norm1_context")

        image_update, text_update = JointAttention(self.config, self.order, name="attn", **kinds)(
            modulate(image, shift, scale), modulate(text, text_shift, text_scale), rotary
        )
        image = gated_residual(image, gate, image_update)
        text = gated_residual(text, text_gate, text_update)

        width = self.config.inner_dim
        image_update = FeedForward(width, name="ff", **kinds)(modulate(image, mlp_shift, mlp_scale))
        text_update = FeedForward(width, name="ff_context", **kinds)(
            modulate(text, text_mlp_shift, text_mlp_scale)
        )
        image = gated_residual(image, mlp_gate, image_update)
        text = gated_residual(text, text_mlp_gate, text_update)
        return (image, text), None


class FluxSingleTransformerBlock(nn.Module):
    """Attention and MLP in parallel on the joined sequence, with one output projection."""

    config: FluxConfig
    order: TokenOrder
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden_states: Float[Array, "b s d"],
        conditioning: Float[Array, "b d"],
        rotary: RotaryTable,
    ) -> tuple[Float[Array, "b s d"], None]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shift, scale, gate = Modulation(3, name="norm", **kinds)(conditioning)
        normed = modulate(hidden_states, shift, scale)
        mixed = SelfAttention(self.config, self.order, name="attn", **kinds)(normed, rotary)
        hidden = Dense(
            MLP_RATIO * self.config.inner_dim, ("embed", "mlp"), name="proj_mlp", **kinds
        )(normed)
        hidden = nn.gelu(constrain(hidden, TOKEN_HIDDEN), approximate=True)
        update = TwoPartDense(self.config.inner_dim, name="proj_out", **kinds)(mixed, hidden)
        return gated_residual(hidden_states, gate, update), None


class FeedForward(nn.Module):
    """GELU MLP; its layers are numbered as in diffusers' `net` list."""

    features: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b s d"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = GeluProjection(MLP_RATIO * self.features, name="net_0", **kinds)(x)
        return Dense(self.features, ("mlp", "embed"), name="net_2", **kinds)(hidden)


class GeluProjection(nn.Module):
    """A linear layer and the tanh approximation of GELU."""

    features: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b s f"]:
        hidden = Dense(
            self.features,
            ("embed", "mlp"),
            name="proj",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x)
        return nn.gelu(constrain(hidden, TOKEN_HIDDEN), approximate=True)
