"""Means over the tokens of a loss in latent space: of the edited ones, or of all.

Shapes: b samples, n tokens, c channels of a latent token, m channels of a mask token.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


def token_weights(mask_tokens: Float[Array, "b n m"], area: str) -> Float32[Array, "b n"]:
    """Weights of the tokens in a mean; they sum to 1.

    Args:
      mask_tokens: the mask's part of the fill condition, 1 = edited.
      area: "mask": equal weights for tokens with an edited pixel, 0 for the others (all 0 if no
        pixel is edited). "whole": equal weights for all.
    """
    edited = jnp.any(mask_tokens > 0.5, axis=-1)
    kept = (edited if area == "mask" else jnp.ones_like(edited)).astype(jnp.float32)
    return kept / jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1.0)


def weighted_mean(
    values: Float[Array, "b n c"], weights: Float[Array, "b n"]
) -> Float32[Array, "b"]:
    """The mean over channels and, by `token_weights`, over tokens."""
    return jnp.sum(weights * jnp.mean(values.astype(jnp.float32), axis=-1), axis=-1)
