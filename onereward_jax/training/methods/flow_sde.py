"""Sampling steps with noise, whose probabilities are known: the SDE of Flow-GRPO (Liu et al.,
arXiv 2505.05470), which has the marginals of the flow's ODE.

With noise level σ, the next one σ', Δ = σ' - σ < 0, and s = a sqrt(σ / (1 - σ)):

    x' ~ N( x (1 + s²/(2σ) Δ) + v (1 + s² (1 - σ)/(2σ)) Δ,  s² |Δ| ).

At σ = 1, 1 - σ is taken at the second level of the grid, as in the released code. The last step,
to σ' = 0, is an Euler step without noise: noise would stay in the picture, and the released code
does not train on that step either.

Shapes: b samples, n tokens, c channels.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from onereward_jax.training.methods.loss_area import weighted_mean


def step_distribution(
    latents: Float[Array, "b n c"],
    velocity: Float[Array, "b n c"],
    sigma: Float[Array, "b"],
    sigma_next: Float[Array, "b"],
    second_sigma: Float[Array, ""],
    noise: float,
) -> tuple[Float32[Array, "b n c"], Float32[Array, "b"]]:
    """Mean and standard deviation of x'.

    Args:
      latents: x, at noise level `sigma`.
      velocity: v(x).
      sigma, sigma_next: σ and σ'.
      second_sigma: the second level of the grid.
      noise: a; 0 gives Euler steps.
    """
    step = sigma_next - sigma
    scale = noise * jnp.sqrt(sigma / (1.0 - jnp.where(sigma >= 1.0, second_sigma, sigma)))
    scale = jnp.where(sigma_next > 0.0, scale, 0.0)
    half = jnp.square(scale) / (2.0 * sigma)

    def wide(value: Float[Array, "b"]) -> Float[Array, "b 1 1"]:
        return value[:, None, None]

    kept = wide(1.0 + half * step) * latents.astype(jnp.float32)
    moved = wide((1.0 + half * (1.0 - sigma)) * step) * velocity.astype(jnp.float32)
    return kept + moved, scale * jnp.sqrt(-step)


def step_log_prob(
    following: Float[Array, "b n c"],
    mean: Float[Array, "b n c"],
    deviation: Float[Array, "b"],
    token_weights: Float[Array, "b n"],
) -> Float32[Array, "b"]:
    """log p(x') per element: averaged over tokens and channels, as in the released code."""
    error = weighted_mean(jnp.square(following - mean), token_weights)
    return -error / (2.0 * jnp.square(deviation)) - jnp.log(deviation * math.sqrt(2.0 * math.pi))


def step_divergence(
    mean: Float[Array, "b n c"],
    other: Float[Array, "b n c"],
    deviation: Float[Array, "b"],
    token_weights: Float[Array, "b n"],
) -> Float32[Array, "b"]:
    """KL of two steps with equal deviations, ‖mean - other‖² / (2 s² abs(Δ)), per element."""
    return weighted_mean(jnp.square(mean - other), token_weights) / (2.0 * jnp.square(deviation))


def clipped_loss(
    log_ratio: Float[Array, "b"], advantages: Float[Array, "b"], clip_range: float
) -> Float32[Array, "b"]:
    """PPO's: the larger of -A ρ and -A clip(ρ, 1 - range, 1 + range), ρ = exp(log_ratio)."""
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return jnp.maximum(-advantages * ratio, -advantages * clipped)
