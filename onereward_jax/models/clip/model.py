"""CLIP's text tower, equal to transformers' `CLIPTextModel` without dropout."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onereward_jax.models.clip.config import LEGACY_EOS_TOKEN_ID, ClipTextConfig
from onereward_jax.models.clip.encoder import STDDEV, Encoder, norm
from onereward_jax.models.layers import CHANNELS, constrain, embed


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
        hidden_states = Encoder(config, is_causal=True, remat=self.remat, name="encoder", **kinds)(
            constrain(hidden_states, CHANNELS)
        )
        last_hidden_state = norm(config, "final_layer_norm", **kinds)(hidden_states)
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
