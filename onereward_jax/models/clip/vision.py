"""CLIP's vision tower, equal to transformers' `CLIPVisionModelWithProjection` without dropout.

Single letters: b batch, h, w height and width in pixels, n patches, d width, e embedding.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from onereward_jax.models.clip.config import ClipVisionConfig
from onereward_jax.models.clip.encoder import STDDEV, Encoder, norm
from onereward_jax.models.layers import CHANNELS, constrain, dense, embed, normal


class ClipVisionModel(nn.Module):
    """Pictures to embeddings in the space that both towers share.

    Attributes:
      config: sizes.
      dtype: dtype of matmuls and the residual stream; norms and softmax are float32.
      param_dtype: dtype of the parameters.
    """

    config: ClipVisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b e"]:
        """The projected class token (`image_embeds` of the original); its length is not 1.

        Args:
          pixels: pictures of `config.image_size`, normalised as preprocessor_config.json says.

        Raises:
          ValueError: another size.
        """
        config = self.config
        if pixels.shape[1:3] != (config.image_size, config.image_size):
            raise ValueError(
                f"pictures of {pixels.shape[1]} x {pixels.shape[2]} pixels, but CLIP config has "
                f"image_size={config.image_size}"
            )
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden_states = VisionEmbeddings(config, name="embeddings", **kinds)(pixels)
        # The original's spelling.
        hidden_states = norm(config, "pre_layrnorm", **kinds)(constrain(hidden_states, CHANNELS))
        hidden_states = Encoder(config, is_causal=False, name="encoder", **kinds)(hidden_states)
        pooled = norm(config, "post_layernorm", **kinds)(hidden_states[:, 0])
        return dense(
            config.projection_dim,
            ("embed", "mlp"),
            STDDEV,
            "visual_projection",
            use_bias=False,
            **kinds,
        )(pooled)


class VisionEmbeddings(nn.Module):
    """Class token and patches, plus their absolute positions."""

    config: ClipVisionConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b n d"]:
        config, kinds = self.config, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        width, patch = config.hidden_size, (config.patch_size, config.patch_size)
        first = self.param("class_embedding", normal(STDDEV, ("norm",)), (width,), self.param_dtype)
        patches = nn.Conv(
            width,
            patch,
            strides=patch,
            padding="VALID",
            use_bias=False,
            kernel_init=normal(STDDEV, (None, None, "conv_in", "conv_out")),
            name="patch_embedding",
            **kinds,
        )(pixels)
        patches = patches.reshape(pixels.shape[0], config.patches, width)
        first = jnp.broadcast_to(first.astype(patches.dtype), (pixels.shape[0], 1, width))
        positions = embed(
            config.patches + 1, width, ("norm", "embed"), STDDEV, "position_embedding", **kinds
        )
        tokens = jnp.concatenate([first, patches], axis=1)
        return tokens + positions(jnp.arange(config.patches + 1))
