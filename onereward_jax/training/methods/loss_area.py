"""Means over the tokens of a loss in latent space, weighted by `pair_batch.area_weights`."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


def weighted_mean(
    values: Float[Array, "b n c"], weights: Float[Array, "b n"]
) -> Float32[Array, "b"]:
    """The mean over channels and, by weights that sum to 1, over tokens."""
    return jnp.sum(weights * jnp.mean(values.astype(jnp.float32), axis=-1), axis=-1)
