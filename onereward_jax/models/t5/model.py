"""The encoder of T5 and T5 v1.1, equal to transformers' `T5EncoderModel` without dropout."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from onereward_jax.models.attention import attention
from onereward_jax.models.layers import CHANNELS, HEADS, HIDDEN, constrain, dense, embed, ones
from onereward_jax.models.t5.config import T5Config
from onereward_jax.models.t5.relative_position import relative_position_buckets
from onereward_jax.parallel import remat

ACTIVATIONS = {
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),
}


class T5Encoder(nn.Module):
    """Embeddings of prompt tokens.

    Attributes:
      config: sizes.
      dtype: dtype of matmuls and the residual stream (bfloat16 is fine, float16 overflows in
        T5-XXL); norms and softmax are float32.
      param_dtype: dtype of the parameters.
      remat: remat policy of the blocks, see `parallel.remat`.
    """

    config: T5Config
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "b l"],
        attention_mask: Num[Array, "b l"] | None = None,
    ) -> Float[Array, "b l d"]:
        """One vector per token.

        Args:
          input_ids: tokens, in [0, vocab_size).
          attention_mask: non-zero where a token is not padding. FLUX passes None: its transformer
            was trained with padding tokens that attend and are attended to.
        """
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden_states = embed(
            self.config.vocab_size, self.config.d_model, ("vocab", "embed"), 1.0, "shared", **kinds
        )(input_ids)
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None, :]
        return T5Stack(self.config, remat=self.remat, name="encoder", **kinds)(
            constrain(hidden_states, CHANNELS), mask
        )


class T5Stack(nn.Module):
    """All blocks; they share one learned relative position bias."""

    config: T5Config
    dtype: Any
    param_dtype: Any
    remat: str

    @nn.compact
    def __call__(
        self, hidden_states: Float[Array, "b l d"], mask: Bool[Array, "b 1 1 l"] | None
    ) -> Float[Array, "b l d"]:
        config = self.config
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        buckets = relative_position_buckets(
            hidden_states.shape[1],
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
        )
        # Checkpoints store this table in block 0; outside the scan it needs no layer axis.
        table = embed(
            config.relative_attention_num_buckets,
            config.num_heads,
            ("norm", "heads"),
            config.d_model**-0.5,
            "relative_attention_bias",
            **kinds,
        )
        bias = table(jnp.asarray(buckets)).transpose(2, 0, 1)[None]
        blocks = nn.scan(
            remat(T5Block, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config, name="block", **kinds)
        hidden_states, _ = blocks(hidden_states, bias, mask)
        return _norm(config, "final_layer_norm", **kinds)(hidden_states)


class T5Block(nn.Module):
    """Pre-norm block: self-attention and feed-forward with residual connections."""

    config: T5Config
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden_states: Float[Array, "b l d"],
        bias: Float[Array, "1 h l l"],
        mask: Bool[Array, "b 1 1 l"] | None,
    ) -> tuple[Float[Array, "b l d"], None]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden_states += AttentionLayer(self.config, name="layer_0", **kinds)(
            hidden_states, bias, mask
        )
        hidden_states += FeedForwardLayer(self.config, name="layer_1", **kinds)(hidden_states)
        return constrain(hidden_states, CHANNELS), None


class AttentionLayer(nn.Module):
    """Norm and self-attention."""

    config: T5Config
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden_states: Float[Array, "b l d"],
        bias: Float[Array, "1 h l l"],
        mask: Bool[Array, "b 1 1 l"] | None,
    ) -> Float[Array, "b l d"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normed = _norm(self.config, "layer_norm", **kinds)(hidden_states)
        return SelfAttention(self.config, name="SelfAttention", **kinds)(normed, bias, mask)


class SelfAttention(nn.Module):
    """Bidirectional attention without the scale 1/√d, which is part of q's initialization."""

    config: T5Config
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        bias: Float[Array, "1 h l l"],
        mask: Bool[Array, "b 1 1 l"] | None,
    ) -> Float[Array, "b l d"]:
        config = self.config
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        inner_dim = config.num_heads * config.d_kv

        def heads(name: str, std: float) -> Float[Array, "b l h k"]:
            flat = dense(inner_dim, ("embed", "heads"), std, name, use_bias=False, **kinds)(x)
            return constrain(flat.reshape(*x.shape[:2], config.num_heads, config.d_kv), HEADS)

        std = config.d_model**-0.5
        mixed = attention(
            heads("q", std * config.d_kv**-0.5),
            heads("k", std),
            heads("v", std),
            bias=bias,
            mask=mask,
            scale=1.0,
        )
        mixed = mixed.reshape(*mixed.shape[:2], inner_dim)
        return dense(
            config.d_model, ("heads", "embed"), inner_dim**-0.5, "o", use_bias=False, **kinds
        )(mixed)


class FeedForwardLayer(nn.Module):
    """Norm and feed-forward."""

    config: T5Config
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden_states: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normed = _norm(self.config, "layer_norm", **kinds)(hidden_states)
        return FeedForward(self.config, name="DenseReluDense", **kinds)(normed)


class FeedForward(nn.Module):
    """Two linear layers with an activation; T5 v1.1 adds a gate."""

    config: T5Config
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        config = self.config
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def widen(name: str) -> Float[Array, "b l f"]:
            std = config.d_model**-0.5
            return constrain(
                dense(config.d_ff, ("embed", "mlp"), std, name, use_bias=False, **kinds)(x), HIDDEN
            )

        activate = ACTIVATIONS[config.activation]
        if config.is_gated:
            hidden = activate(widen("wi_0")) * widen("wi_1")
        else:
            hidden = activate(widen("wi"))
        return dense(
            config.d_model, ("mlp", "embed"), config.d_ff**-0.5, "wo", use_bias=False, **kinds
        )(hidden)


def _norm(config: T5Config, name: str, **kinds: Any) -> nn.RMSNorm:
    epsilon, scale_init = config.layer_norm_epsilon, ones(("norm",))
    return nn.RMSNorm(epsilon=epsilon, scale_init=scale_init, name=name, **kinds)
