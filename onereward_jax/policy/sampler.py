"""Sampling along the flow-matching path, and true classifier-free guidance.

Solvers take one forward pass per step. "euler" is that of the paper and of FLUX. "ab2" is the
Adams-Bashforth method of order 2 with steps of any width: the velocity is extrapolated to the
middle of the step from this step's and the last one's,

    x' = x + h (v + (h / 2 h_last) (v - v_last)),   h = σ' - σ

(Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, Section III.5). The first step
is Euler's.

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
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from onereward_jax.policy.model_inputs import Condition, PromptEmbeds
from onereward_jax.policy.noise_schedule import Sigma, broadcast_sigma

Solver = Literal["euler", "ab2"]

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


def ab2_step(
    latents: Float[Array, "b n c"],
    velocity: Float[Array, "b n c"],
    last: Float[Array, "b n c"],
    sigma_last: Sigma,
    sigma: Sigma,
    sigma_next: Sigma,
) -> Float32[Array, "b n c"]:
    """x + (σ' - σ) (v + (σ' - σ) / (2 (σ - σ_last)) (v - v_last)), always in float32.

    `last` is the velocity at `sigma_last`; with `sigma_last` = `sigma`, in a first step or a padded
    grid, it is not used and the step is Euler's.
    """
    before, width = jnp.subtract(sigma, sigma_last), jnp.subtract(sigma_next, sigma)
    known = before < 0.0
    share = jnp.where(known, 0.5 * width / jnp.where(known, before, 1.0), 0.0)
    velocity = velocity.astype(jnp.float32)
    velocity = velocity + broadcast_sigma(share, latents.ndim) * (velocity - last)
    return euler_step(latents, velocity, sigma, sigma_next)


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

    Both branches run in one forward pass of twice the batch. Those of a sample are neighbours,
    [negative, positive], so that with the batch sharded both stay on the sample's device: a batch
    of all negatives and then all positives is moved between devices in every step. Inputs that do
    not change between steps are doubled here, outside the sampling loop.

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
    both = jax.tree.map(_neighbours, negative_embeds, embeds)

    def call(latents: Float[Array, "b n c"], sigma: Float32[Array, "b"]) -> Float32[Array, "b n c"]:
        predicted = velocity(_twice(latents), condition, both, _twice(sigma), embedded)
        predicted = predicted.astype(jnp.float32).reshape(batch, 2, *predicted.shape[1:])
        negative, positive = predicted[:, 0], predicted[:, 1]
        return negative + broadcast_sigma(true_cfg_scale, 3) * (positive - negative)

    return call


def _neighbours(
    first: Float[Array, "b *rest"], second: Float[Array, "b *rest"]
) -> Float[Array, "d *rest"]:
    """[first[0], second[0], first[1], ...]."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _twice(array: Float[Array, "b *rest"]) -> Float[Array, "d *rest"]:
    return _neighbours(array, array)


def denoise(
    velocity: VelocityFn,
    latents: Float[Array, "b n c"],
    sigmas: Grid,
    start: int | Int[Array, ""],
    stop: int | Int[Array, ""],
    solver: Solver = "euler",
) -> Float32[Array, "b n c"]:
    """Takes steps `start`, ..., `stop` - 1: from noise level sigmas[start] to sigmas[stop].

    The first step is Euler's, with every `solver`.

    Both bounds may be traced, so one compiled function handles every range. Not reverse-mode
    differentiable, because the trip count is dynamic; Algorithm 1 needs no gradient here.

    Raises:
      ValueError: a Python number `stop` beyond the grid (a traced one cannot be checked).
    """
    if isinstance(stop, int) and stop >= sigmas.shape[-1]:
        raise ValueError(f"stop {stop}: the grid has only {sigmas.shape[-1] - 1} steps")

    def step(index: Int[Array, ""], current: _Current) -> _Current:
        return _step(velocity, current, sigmas, index, start)

    return jax.lax.fori_loop(start, stop, step, _first(latents, solver))[0]


def trajectory(
    velocity: VelocityFn,
    latents: Float[Array, "b n c"],
    sigmas: Float32[Array, "points"],
    solver: Solver = "euler",
) -> tuple[Float32[Array, "b n c"], Float32[Array, "steps b n c"]]:
    """All steps of the grid: (x_0, the latents before each step)."""

    def step(current: _Current, index: Int[Array, ""]) -> tuple[_Current, Array]:
        return _step(velocity, current, sigmas, index, 0), current[0]

    indices = jnp.arange(sigmas.shape[-1] - 1)
    (finished, _), latents = jax.lax.scan(step, _first(latents, solver), indices)
    return finished, latents


_Current = tuple[Float32[Array, "b n c"], Float32[Array, "b n c"] | None]
"""Latents, and the velocity of the last step for "ab2"."""


def _first(latents: Float[Array, "b n c"], solver: Solver) -> _Current:
    latents = latents.astype(jnp.float32)
    return latents, None if solver == "euler" else jnp.zeros_like(latents)


def _step(
    velocity: VelocityFn,
    current: _Current,
    sigmas: Grid,
    index: Int[Array, ""],
    start: int | Int[Array, ""],
) -> _Current:
    """One step; the first, at `start`, is Euler's."""
    latents, last = current
    sigmas = jnp.asarray(sigmas, jnp.float32)
    batch = latents.shape[0]
    sigma = jnp.broadcast_to(sigmas[..., index], (batch,))
    sigma_next = jnp.broadcast_to(sigmas[..., index + 1], (batch,))
    found = velocity(latents, sigma)
    if last is None:
        return euler_step(latents, found, sigma, sigma_next), None
    before = jnp.broadcast_to(sigmas[..., jnp.where(index > start, index - 1, index)], (batch,))
    return ab2_step(latents, found, last, before, sigma, sigma_next), found.astype(jnp.float32)
