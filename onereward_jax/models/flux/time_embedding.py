"""The conditioning vector: noise level, guidance scale and pooled prompt, added together."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from onereward_jax.models.flux.config import FluxConfig
from onereward_jax.models.flux.layers import Dense

SINUSOID_CHANNELS = 256
MAX_PERIOD = 10000.0


def sinusoid(value: Float[Array, "b"]) -> Float[Array, "b 256"]:
    """[cos, sin] of `value` (0..1000 for noise levels) at geometric frequencies, float32.

    The frequencies are computed in float32, as in the original: at a guidance of 3500 the rounding
    changes the angle by 2e-4.
    """
    half = SINUSOID_CHANNELS // 2
    exponent = np.float32(-np.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / half
    angle = value.astype(jnp.float32)[:, None] * np.exp(exponent)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Embedder(nn.Module):
    """Two linear layers with SiLU between them."""

    features: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b d"]:
        kinds = dict(
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.normal(0.02),
        )
        hidden = Dense(self.features, ("embed", "mlp"), name="linear_1", **kinds)(x)
        return Dense(self.features, ("mlp", "embed"), name="linear_2", **kinds)(nn.silu(hidden))


class TimeTextEmbed(nn.Module):
    """time + guidance + text, each through its own embedder."""

    config: FluxConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        timestep: Float[Array, "b"],
        guidance: Float[Array, "b"] | None,
        pooled_projections: Float[Array, "b p"],
    ) -> Float[Array, "b d"]:
        """Args: timestep and guidance already times 1000; pooled_projections from CLIP."""
        kinds = dict(features=self.config.inner_dim, dtype=self.dtype, param_dtype=self.param_dtype)
        total = Embedder(name="timestep_embedder", **kinds)(sinusoid(timestep))
        if guidance is not None:
            total = total + Embedder(name="guidance_embedder", **kinds)(sinusoid(guidance))
        return total + Embedder(name="text_embedder", **kinds)(pooled_projections)
