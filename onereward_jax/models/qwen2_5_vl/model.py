"""Qwen2.5-VL (arXiv 2502.13923) in Flax Linen, equal to transformers' class of that name.

Restricted to what an image judge needs: still images with one static grid per call, at the same
positions in every sequence of a batch. No videos, no generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from onereward_jax.models.layers import normal
from onereward_jax.models.qwen2_5_vl.config import Grid, Qwen2_5_VLConfig
from onereward_jax.models.qwen2_5_vl.language import LanguageModel
from onereward_jax.models.qwen2_5_vl.positions import image_position_ids
from onereward_jax.models.qwen2_5_vl.vision import VisionTower


class OutputProjection(nn.Module):
    """The untied output projection's kernel, so that callers can use some of its columns."""

    features: int
    vocab_size: int
    stddev: float
    param_dtype: Any

    @nn.compact
    def __call__(self) -> Float[Array, "c v"]:
        """The kernel."""
        shape = (self.features, self.vocab_size)
        return self.param(
            "kernel", normal(self.stddev, ("embed", "vocab")), shape, self.param_dtype
        )


class Qwen2_5_VL(nn.Module):
    """Vision tower, language model and output projection.

    Attributes:
      config: sizes.
      dtype: compute dtype; norms, softmax, rotary angles and logits are float32.
      param_dtype: dtype of the parameters.
      remat: remat policy of both layer stacks, see `parallel/remat.py`.
    """

    config: Qwen2_5_VLConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        text = self.config.text_config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype, "remat": self.remat}
        self.visual = VisionTower(self.config.vision_config, **types)
        self.model = LanguageModel(text, **types)
        if not self.config.tie_word_embeddings:
            self.lm_head = OutputProjection(
                text.hidden_size, text.vocab_size, text.initializer_range, self.param_dtype
            )

    def image_tokens(self, patches: Float[Array, "b n p"], grid: Grid) -> Float[Array, "b m c"]:
        """Tokens of a batch of images that share a grid; see `VisionTower`."""
        return self.visual(patches, grid)

    def embed(self, input_ids: Int[Array, "b n"]) -> Float[Array, "b n c"]:
        """Embeddings of token ids."""
        return self.model.embed(input_ids)

    def decode(
        self,
        inputs_embeds: Float[Array, "b n c"],
        position_ids: Int[Array | np.ndarray, "3 #b n"],
        suffix_mask: Bool[Array, "b s n"] | None = None,
    ) -> Float[Array, "b n c"]:
        """Hidden states before the final norm; see `LanguageModel.decode`."""
        return self.model.decode(inputs_embeds, position_ids, suffix_mask)

    def logits(
        self, hidden: Float[Array, "... c"], token_ids: tuple[int, ...] | None = None
    ) -> Float[Array, "... v"]:
        """Final norm and output projection, float32.

        Args:
          hidden: output of `decode`, or some of its tokens.
          token_ids: vocabulary entries to compute; None: all.
        """
        if self.config.tie_word_embeddings:
            kernel = self.model.embedding_table().T
        else:
            kernel = self.lm_head()
        if token_ids is not None:
            kernel = kernel[:, np.asarray(token_ids)]
        hidden = self.model.normalise(hidden)
        return jnp.einsum(
            "...c,cv->...v", hidden, kernel.astype(self.dtype), preferred_element_type=jnp.float32
        )

    def __call__(
        self,
        input_ids: Int[Array, "b n"],
        patches: Float[Array, "b i p q"],
        grid: Grid,
        image_starts: Sequence[int],
    ) -> Float[Array, "b n v"]:
        """Next-token logits of sequences with images inside.

        Sequences may be padded on the right: with causal attention, real tokens are not affected.

        Args:
          input_ids: text with placeholders for image tokens.
          patches: the i images of each sequence, flattened in merge order.
          grid: patches of every image along (time, height, width).
          image_starts: index of each image's first placeholder.
        """
        batch, images = patches.shape[:2]
        tokens = self.image_tokens(patches.reshape(batch * images, *patches.shape[2:]), grid)
        tokens = tokens.reshape(batch, images, *tokens.shape[1:])
        embeds = place_images(self.embed(input_ids), jnp.unstack(tokens, axis=1), image_starts)
        merge = self.config.vision_config.spatial_merge_size
        grids = [grid] * images
        position_ids = image_position_ids(input_ids.shape[1], image_starts, grids, merge)
        return self.logits(self.decode(embeds, position_ids[:, None]))


def place_images(
    embeds: Float[Array, "b n c"],
    images: Sequence[Float[Array, "b m c"]],
    image_starts: Sequence[int],
) -> Float[Array, "b n c"]:
    """`embeds` with the tokens of image i inserted at index image_starts[i].

    Raises:
      ValueError: images overlap or do not fit into the sequence.
    """
    parts, done = [], 0
    for start, tokens in zip(image_starts, images, strict=True):
        if start < done or start + tokens.shape[1] > embeds.shape[1]:
            raise ValueError(
                f"image of {tokens.shape[1]} tokens at {start} does not fit {embeds.shape[1]}"
            )
        parts += [embeds[:, done:start], tokens]
        done = start + tokens.shape[1]
    return jnp.concatenate([*parts, embeds[:, done:]], axis=1)


def init_params(model: Qwen2_5_VL, key: PRNGKeyArray) -> Any:
    """Initial parameters with logical axis names, for `jax.eval_shape` or a jitted init."""
    vision = model.config.vision_config
    merge = vision.spatial_merge_size
    patches = jnp.zeros((1, 1, merge**2, vision.patch_dim), jnp.float32)
    grid = (1, merge, merge)
    return model.init(key, jnp.zeros((1, 2), jnp.int32), patches, grid, (0,))["params"]
