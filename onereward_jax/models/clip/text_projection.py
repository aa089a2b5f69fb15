"""CLIP's text tower with its projection, equal to transformers' `CLIPTextModelWithProjection`.

Single letters: b batch, l tokens, e embedding.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onereward_jax.models.clip.config import ClipTextConfig
from onereward_jax.models.clip.encoder import STDDEV
from onereward_jax.models.clip.model import ClipTextModel
from onereward_jax.models.layers import dense


class ClipTextProjection(nn.Module):
    """Prompts to embeddings in the space that both towers share.

    Attributes:
      config: sizes of the text tower.
      projection_dim: width of the embedding.
      dtype: dtype of matmuls and the residual stream; norms and softmax are float32.
      param_dtype: dtype of the parameters.
    """

    config: ClipTextConfig
    projection_dim: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, input_ids: Int[Array, "b l"]) -> Float[Array, "b e"]:
        """The projected end-of-text token (`text_embeds` of the original); its length is not 1.

        Raises:
          ValueError: as `ClipTextModel`.
        """
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        _, pooled = ClipTextModel(self.config, name="text_model", **kinds)(input_ids)
        axes = ("embed", "mlp")
        return dense(self.projection_dim, axes, STDDEV, "text_projection", use_bias=False, **kinds)(
            pooled
        )
