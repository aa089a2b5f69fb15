"""Language model of Qwen2.5-VL: a decoder with grouped-query attention and multimodal RoPE.

A sequence may branch: a causal *prefix*, followed by tokens (the *suffix*) with an explicit
attention mask. Multiple continuations of one prefix then run in a single forward pass, without a KV
cache, and the prefix is computed only once.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onereward_jax.models import int8, lora
from onereward_jax.models.attention import attention
from onereward_jax.models.layers import CHANNELS, HEADS, constrain, normal
from onereward_jax.models.qwen2_5_vl.config import TextConfig
from onereward_jax.models.qwen2_5_vl.layers import Dense, RMSNorm, SwiGLU
from onereward_jax.models.qwen2_5_vl.positions import rotate, text_rotary
from onereward_jax.parallel import remat

Rotary = tuple[Float[Array, "#b n half"], Float[Array, "#b n half"]]


def branching_attention(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b n g d"],
    v: Float[Array, "b n g d"],
    suffix_mask: Bool[Array, "b s n"] | None,
) -> Float[Array, "b n h d"]:
    """Causal attention, except that the last s tokens use `suffix_mask`.

    The prefix needs no mask in memory; the suffix needs one of size s · n.
    """
    if suffix_mask is None:
        return attention(q, k, v, is_causal=True)
    split = q.shape[1] - suffix_mask.shape[1]
    prefix = attention(q[:, :split], k[:, :split], v[:, :split], is_causal=True)
    suffix = attention(q[:, split:], k, v, mask=suffix_mask[:, None])
    return jnp.concatenate([prefix, suffix], axis=1)


class TextAttention(nn.Module):
    """Grouped-query self-attention; the output projection has no bias."""

    config: TextConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        rotary: Rotary,
        suffix_mask: Bool[Array, "b s n"] | None,
    ) -> Float[Array, "b n c"]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        stddev, heads = config.initializer_range, config.num_attention_heads

        def project(name: str, count: int, axis: str) -> Float[Array, "b n h d"]:
            features, axes = count * config.head_dim, ("embed", axis)
            flat = Dense(features, axes, stddev, use_bias=True, name=name, **types)(x)
            return constrain(flat.reshape(*x.shape[:2], count, config.head_dim), HEADS)

        q = rotate(project("q_proj", heads, "heads"), *rotary)
        k = rotate(project("k_proj", config.num_key_value_heads, "kv_heads"), *rotary)
        v = project("v_proj", config.num_key_value_heads, "kv_heads")
        out = constrain(branching_attention(q, k, v, suffix_mask), HEADS).reshape(x.shape)
        output = Dense(
            x.shape[-1], ("heads", "embed"), stddev, use_bias=False, name="o_proj", **types
        )
        return output(out)


class DecoderLayer(nn.Module):
    """One pre-norm layer; shaped for `nn.scan`."""

    config: TextConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        rotary: Rotary,
        suffix_mask: Bool[Array, "b s n"] | None,
    ) -> tuple[Float[Array, "b n c"], None]:
        """The residual stream after this layer, and None (no scan output)."""
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normed = RMSNorm(config.rms_norm_eps, name="input_layernorm", **types)(x)
        x = x + TextAttention(config, name="self_attn", **types)(normed, rotary, suffix_mask)
        normed = RMSNorm(config.rms_norm_eps, name="post_attention_layernorm", **types)(x)
        mlp = SwiGLU(config.intermediate_size, config.initializer_range, False, name="mlp", **types)
        return constrain(x + mlp(normed), CHANNELS), None


class LanguageModel(nn.Module):
    """Token embeddings, decoder layers and the final norm, without the output projection."""

    config: TextConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed_tokens = nn.Embed(
            config.vocab_size,
            config.hidden_size,
            embedding_init=normal(config.initializer_range, ("vocab", "embed")),
            **types,
        )
        layers = nn.scan(
            remat(DecoderLayer, self.remat),
            variable_axes={"params": 0, int8.COLLECTION: 0, lora.COLLECTION: 0},
            split_rngs={"params": True},
            length=config.num_hidden_layers,
            in_axes=(nn.broadcast, nn.broadcast),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        self.layers = layers(config, **types)
        self.norm = RMSNorm(config.rms_norm_eps, **types)

    def embed(self, input_ids: Int[Array, "b n"]) -> Float[Array, "b n c"]:
        """Embeddings of token ids."""
        return constrain(self.embed_tokens(input_ids), CHANNELS)

    def decode(
        self,
        inputs_embeds: Float[Array, "b n c"],
        position_ids: Int[Array | np.ndarray, "3 #b n"],
        suffix_mask: Bool[Array, "b s n"] | None = None,
    ) -> Float[Array, "b n c"]:
        """Hidden states of all tokens, before the final norm.

        Args:
          inputs_embeds: text and image tokens.
          position_ids: (time, row, column) of every token.
          suffix_mask: True where the last s tokens attend; None: the whole sequence is causal.
        """
        rotary = text_rotary(position_ids, self.config)
        hidden, _ = self.layers(constrain(inputs_embeds, CHANNELS), rotary, suffix_mask)
        return hidden

    def normalise(self, hidden: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """The final norm."""
        return self.norm(hidden)

    def embedding_table(self) -> Float[Array, "v c"]:
        """The embedding table, for a tied output projection."""
        return self.embed_tokens.embedding
