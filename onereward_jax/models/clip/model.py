"""CLIP's text tower, equal to transformers' `CLIPTextModel` without dropout."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onereward_jax.models.attention import attention
from onereward_jax.models.clip.config import LEGACY_EOS_TOKEN_ID, ClipTextConfig
from onereward_jax.models.layers import (
    CHANNELS,
    HEADS,
    HIDDEN,
    constrain,
    dense,
    embed,
    ones,
    zeros,
)
from onereward_jax.parallel import remat

STDDEV = 0.02


class ClipTextModel(nn.Module):
    """Embeddings of prompt tokens and of the whole prompt.

    Attributes:
      config: sizes.
      dtype: dtype of matmuls and the residual stream; norms and softmax are float32.
      param_dtype: dtype of the parameters.
      remat: remat policy of the blocks, see `parallel.remat`.
    """

    config: ClipTextConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, input_ids: Int[Array, "b l"]
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b d"]]:
        """The normalised last hidden state, and its value at the end-of-text token.

        Args:
          input_ids: tokens in [0, vocab_size), each row with an end-of-text token; attention is
            causal, so padding after it has no effect.

        Raises:
          ValueError: more tokens than positions.
        """
        config = self.config
        if input_ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"{input_ids.shape[1]} tokens, but CLIP config has "
                f"max_position_embeddings={config.max_position_embeddings}"
            )
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden_states = TextEmbeddings(config, name="embeddings", **kinds)(input_ids)
        hidden_states = TextEncoder(config, remat=self.remat, name="encoder", **kinds)(
            constrain(hidden_states, CHANNELS)
        )
        last_hidden_state = _norm(config, "final_layer_norm", **kinds)(hidden_states)
        if config.eos_token_id == LEGACY_EOS_TOKEN_ID:
            end = jnp.argmax(input_ids, axis=-1)
        else:
            end = jnp.argmax(input_ids == config.eos_token_id, axis=-1)
        pooled = jnp.take_along_axis(last_hidden_state, end[:, None, None], axis=1)[:, 0]
        return last_hidden_state, pooled


class TextEmbeddings(nn.Module):
    """Token plus absolute position."""

    config: ClipTextConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, input_ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        def table(rows: int, axes: tuple[str, str], name: str) -> nn.Embed:
            kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
            return embed(rows, self.config.hidden_size, axes, STDDEV, name, **kinds)

        tokens = table(self.config.vocab_size, ("vocab", "embed"), "token_embedding")
        positions = table(
            self.config.max_position_embeddings, ("norm", "embed"), "position_embedding"
        )
        return tokens(input_ids) + positions(jnp.arange(input_ids.shape[1]))


class TextEncoder(nn.Module):
    """The stack of blocks."""

    config: ClipTextConfig
    dtype: Any
    param_dtype: Any
    remat: str

    @nn.compact
    def __call__(self, hidden_states: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        layers = nn.scan(
            remat(EncoderLayer, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.dtype, self.param_dtype, name="layers")
        return layers(hidden_states)[0]


class EncoderLayer(nn.Module):
    """Pre-norm block: causal self-attention and MLP with residual connections."""

    config: ClipTextConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden_states: Float[Array, "b l d"]) -> tuple[Float[Array, "b l d"], None]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normed = _norm(self.config, "layer_norm1", **kinds)(hidden_states)
        hidden_states += SelfAttention(self.config, name="self_attn", **kinds)(normed)
        normed = _norm(self.config, "layer_norm2", **kinds)(hidden_states)
        hidden_states += MLP(self.config, name="mlp", **kinds)(normed)
        return constrain(hidden_states, CHANNELS), None


class SelfAttention(nn.Module):
    """Causal multi-head attention with biases everywhere."""

    config: ClipTextConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        width, count = self.config.hidden_size, self.config.num_attention_heads
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def heads(name: str) -> Float[Array, "b l h k"]:
            flat = dense(width, ("embed", "heads"), STDDEV, name, **kinds)(x)
            return constrain(flat.reshape(*x.shape[:2], count, width // count), HEADS)

        mixed = attention(heads("q_proj"), heads("k_proj"), heads("v_proj"), is_causal=True)
        return dense(width, ("heads", "embed"), STDDEV, "out_proj", **kinds)(mixed.reshape(x.shape))


class MLP(nn.Module):
    """Two projections around an activation."""

    config: ClipTextConfig
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


def _norm(config: ClipTextConfig, name: str, **kinds: Any) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        use_fast_variance=False,
        scale_init=ones(("norm",)),
        bias_init=zeros(("norm",)),
        name=name,
        **kinds,
    )
