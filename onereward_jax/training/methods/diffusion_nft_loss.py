"""The loss of DiffusionNFT (Zheng et al., "Online Diffusion Reinforcement with Forward Process",
arXiv 2509.16117).

A clean sample x_0 of the old policy with optimality probability r is noised to x_σ, v = ε - x_0:

    r ‖v+ - v‖² + (1 - r) ‖v- - v‖²,
    v+ = (1 - β) v_old + β v_θ,   v- = (1 + β) v_old - β v_θ.

Both errors are taken in x_0-space and normalised by their own size (the paper's adaptive
weighting; sg: no gradient): ‖x+ - x_0‖² / sg(mean abs(x+ - x_0)) with x+ = x_σ - σ v+. As in the
released code the whole is divided by β and multiplied by the limit of the advantages: at θ = old
its gradient then has the size of an advantage times that of flow matching.

Shapes: b samples, n tokens, c channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from onereward_jax.policy import predict_x0
from onereward_jax.training.methods.loss_area import weighted_mean

SMALLEST_ERROR = 1e-5
"""Lower bound on the normaliser of an error."""

DECAY_GROWTH = 1e-3
"""η grows by this per update: η_i = min(growth * i, its maximum)."""


def optimality(advantages: Float[Array, "b"], limit: float) -> Float32[Array, "b"]:
    """r = 1/2 + 1/2 clip(A / limit, -1, 1): the probability that a sample is a good one.

    The paper's Z_c is `limit` times the standard deviation; its released code has limit 5.
    """
    return 0.5 + 0.5 * jnp.clip(advantages / limit, -1.0, 1.0)


def old_policy_decay(maximum: float, step: Int[Array, ""]) -> Float32[Array, ""]:
    """η_i of the old policy, θ_old ← η_i θ_old + (1 - η_i) θ, after update i.

    The first updates are on-policy, later ones more and more off-policy, up to `maximum`.
    """
    return jnp.minimum(DECAY_GROWTH * step.astype(jnp.float32), maximum)


def nft_loss(
    velocity: Float[Array, "b n c"],
    old_velocity: Float[Array, "b n c"],
    noisy: Float[Array, "b n c"],
    clean: Float[Array, "b n c"],
    sigma: Float[Array, "b"],
    optimality: Float[Array, "b"],
    token_weights: Float[Array, "b n"],
    beta: float,
    limit: float,
) -> Float32[Array, "b"]:
    """The loss of each sample.

    Args:
      velocity: v_θ(x_σ); differentiated.
      old_velocity: v_old(x_σ).
      noisy: x_σ.
      clean: x_0.
      sigma: noise levels in (0, 1].
      optimality: r in [0, 1].
      token_weights: weights of the mean over tokens, with sum 1.
      beta: β.
      limit: as in `optimality`.
    """
    old_velocity = jax.lax.stop_gradient(old_velocity)
    positive = (1.0 - beta) * old_velocity + beta * velocity
    negative = (1.0 + beta) * old_velocity - beta * velocity

    def error(implicit: Float[Array, "b n c"]) -> Float32[Array, "b"]:
        difference = predict_x0(noisy, implicit, sigma) - clean
        size = weighted_mean(jnp.abs(difference), token_weights)
        size = jax.lax.stop_gradient(jnp.maximum(size, SMALLEST_ERROR))
        return weighted_mean(jnp.square(difference), token_weights) / size

    both = optimality * error(positive) + (1.0 - optimality) * error(negative)
    return limit / beta * both
