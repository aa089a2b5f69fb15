"""The transformer that both towers of CLIP share: pre-norm blocks of attention and MLP."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from onereward_jax.models.attention import attention
from onereward_jax.models.clip.config import ClipTextConfig, ClipVisionConfig
from onereward_jax.models.layers import CHANNELS, HEADS, HIDDEN, constrain, dense, ones, zeros
from onereward_jax.parallel import remat

STDDEV = 0.02

ClipConfig = ClipTextConfig | ClipVisionConfig


class Encoder(nn.Module):
    """The stack of blocks; attention is causal in the text tower only."""

    config: ClipConfig
    is_causal: bool
    dtype: Any
    param_dtype: Any
    remat: str = "none"

    @nn.compact
    def __call__(self, hidden_states: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        layers = nn.scan(
            remat(EncoderLayer, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.is_causal, self.dtype, self.param_dtype, name="layers")
        return layers(hidden_states)[0]


class EncoderLayer(nn.Module):
    """Pre-norm block: self-attention and MLP with residual connections."""

    config: ClipConfig
    is_causal: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden_states: Float[Array, "b l d"]) -> tuple[Float[Array, "b l d"], None]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normed = norm(self.config, "layer_norm1", **kinds)(hidden_states)
        mixed = SelfAttention(self.config, self.is_causal, name="self_attn", **kinds)(normed)
        hidden_states += mixed
        normed = norm(self.config, "layer_norm2", **kinds)(hidden_states)
        hidden_states += MLP(self.config, name="mlp", **kinds)(normed)
        return constrain(hidden_states, CHANNELS), None


class SelfAttention(nn.Module):
    """Multi-head attention with biases everywhere."""

    config: ClipConfig
    is_causal: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        width, count = self.config.hidden_size, self.config.num_attention_heads
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def heads(name: str) -> Float[Array, "b l h k"]:
            flat = dense(width, ("embed", "heads"), STDDEV, name, **kinds)(x)
            return constrain(flat.reshape(*x.shape[:2], count, width // count), HEADS)

        q, k, v = (heads(name) for name in ("q_proj", "k_proj", "v_proj"))
        mixed = attention(q, k, v, is_causal=self.is_causal)
        return dense(width, ("heads", "embed"), STDDEV, "out_proj", **kinds)(mixed.reshape(x.shape))


class MLP(nn.Module):
    """Two projections around an activation."""

    config: ClipConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = dense(self.config.intermediate_size, ("embed", "mlp"), STDDEV, "fc1", **kinds)(x)
        hidden = constrain(hidden, HIDDEN)
        if self.config.hidden_act == "quick_gelu":
            hidden = hidden * nn.sigmoid(1.702 * hidden)
        else:
            hidden = nn.gelu(hidden, approximate=False)
        return dense(self.config.hidden_size, ("mlp", "embed"), STDDEV, "fc2", **kinds)(hidden)


def norm(config: ClipConfig, name: str, **kinds: Any) -> nn.LayerNorm:
    """A layer norm of either tower, with its statistics in float32."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        use_fast_variance=False,
        scale_init=ones(("norm",)),
        bias_init=zeros(("norm",)),
        name=name,
        **kinds,
    )
