"""Euler sampling along the flow-matching path, and true classifier-free guidance.

The sampler is independent of the network: a `VelocityFn` takes latents and one σ per sample.

Batches of candidates mix numbers of steps and strengths. Padding every grid to the global maximum
wastes forward passes (a quarter, for 20 to 50 steps drawn uniformly); a static step count per group
wastes none but compiles once per group. Here the loop *bounds* are traced and the grids are rows of
a table: the host sorts candidates by number of steps, forms batches, and passes the longest grid of
each batch as `stop`. There is one compiled function, and grids are padded (by zero-length steps)
only within a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from onereward_jax.policy.model_inputs import Condition, PromptEmbeds
from onereward_jax.policy.noise_schedule import Sigma, broadcast_sigma

VelocityFn = Callable[[Float[Array, "b n c"], Float32[Array, "b"]], Float[Array, "b n c"]]
"""(latents, sigma) -> velocity."""

ConditionalVelocityFn = Callable[
    [
        Float[Array, "b n c"],
        Condition,
        PromptEmbeds,
        Float32[Array, "b"],
        Float32[Array, "b"],
    ],
    Float[Array, "b n c"],
]
"""(latents, condition, embeds, sigma, guidance_scale) -> velocity."""

Grid = Float32[Array | np.ndarray, "points"] | Float32[Array | np.ndarray, "b points"]
"""Noise levels shared by the batch, or one row per sample (`noise_schedule.sigma_table`)."""

Scale = float | Float[Array, ""] | Float[Array, "b"]
"""A guidance scale, static or traced, shared by all samples or one per sample."""


def euler_step(
    latents: Float[Array, "b *rest"],
    velocity: Float[Array, "b *rest"],
    sigma: Sigma,
    sigma_next: Sigma,
) -> Float32[Array, "b *rest"]:
    """x + (σ' - σ) v, always in float32."""
    step = broadcast_sigma(sigma_next, latents.ndim) - broadcast_sigma(sigma, latents.ndim)
    return latents.astype(jnp.float32) + step * velocity.astype(jnp.float32)


def guided(
    velocity: ConditionalVelocityFn,
    condition: Condition,
    embeds: PromptEmbeds,
    negative_embeds: PromptEmbeds | None,
    *,
    guidance_scale: Scale = 1.0,
    true_cfg_scale: Scale = 1.0,
) -> VelocityFn:
    """The velocity under true classifier-free guidance, v = v_neg + s (v_pos - v_neg).

    Both branches run in one forward pass of twice the batch, in the order [negative, positive] as
    in the authors' released pipeline. Inputs that do not change between steps are concatenated
    here, outside the sampling loop.

    Args:
      velocity: the conditional network.
      condition, embeds: the fill condition and the prompt.
      negative_embeds: the negative prompt; may be None only if true_cfg_scale is the number 1.0.
      guidance_scale: the scale *embedded* in guidance-distilled FLUX, in both branches.
      true_cfg_scale: s. The Python number 1.0 skips the negative branch; an array always computes
        it (one scale per candidate).

    Raises:
      ValueError: guidance without `negative_embeds`.
    """
    batch = condition.tokens.shape[0]
    embedded = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), (batch,))
    if isinstance(true_cfg_scale, (int, float)) and true_cfg_scale == 1.0:
        return lambda latents, sigma: velocity(latents, condition, embeds, sigma, embedded)
    if negative_embeds is None:
        raise ValueError(f"true_cfg_scale {true_cfg_scale} needs embeddings of a negative prompt")

    condition = condition._replace(tokens=_twice(condition.tokens))
    embedded = _twice(embedded)
    both = jax.tree.map(lambda *pair: jnp.concatenate(pair), negative_embeds, embeds)

    def call(latents: Float[Array, "b n c"], sigma: Float32[Array, "b"]) -> Float32[Array, "b n c"]:
        predicted = velocity(_twice(latents), condition, both, _twice(sigma), embedded)
        negative, positive = jnp.split(predicted.astype(jnp.float32), 2)
        return negative + broadcast_sigma(true_cfg_scale, 3) * (positive - negative)

    return call


def _twice(array: Float[Array, "b *rest"]) -> Float[Array, "d *rest"]:
    return jnp.concatenate([array, array])


def denoise(
    velocity: VelocityFn,
    latents: Float[Array, "b n c"],
    sigmas: Grid,
    start: int | Int[Array, ""],
    stop: int | Int[Array, ""],
) -> Float32[Array, "b n c"]:
    """Takes steps `start`, ..., `stop` - 1: from noise level sigmas[start] to sigmas[stop].

    Both bounds may be traced, so one compiled function handles every range. Not reverse-mode
    differentiable, because the trip count is dynamic; Algorithm 1 needs no gradient here.

    Raises:
      ValueError: a Python number `stop` beyond the grid (a traced one cannot be checked).
    """
    if isinstance(stop, int) and stop >= sigmas.shape[-1]:
        raise ValueError(f"stop {stop}: the grid has only {sigmas.shape[-1] - 1} steps")

    def step(index: Int[Array, ""], current: Float32[Array, "b n c"]) -> Float32[Array, "b n c"]:
        return _step(velocity, current, sigmas, index)

    return jax.lax.fori_loop(start, stop, step, latents.astype(jnp.float32))


def trajectory(
    velocity: VelocityFn, latents: Float[Array, "b n c"], sigmas: Float32[Array, "points"]
) -> tuple[Float32[Array, "b n c"], Float32[Array, "steps b n c"]]:
    """All Euler steps of the grid: (x_0, the latents before each step)."""

    def step(current: Array, index: Int[Array, ""]) -> tuple[Array, Array]:
        return _step(velocity, current, sigmas, index), current

    indices = jnp.arange(sigmas.shape[-1] - 1)
    return jax.lax.scan(step, latents.astype(jnp.float32), indices)


def _step(
    velocity: VelocityFn, latents: Float32[Array, "b n c"], sigmas: Grid, index: Int[Array, ""]
) -> Float32[Array, "b n c"]:
    sigmas = jnp.asarray(sigmas, jnp.float32)
    batch = latents.shape[0]
    sigma = jnp.broadcast_to(sigmas[..., index], (batch,))
    sigma_next = jnp.broadcast_to(sigmas[..., index + 1], (batch,))
    return euler_step(latents, velocity(latents, sigma), sigma, sigma_next)
