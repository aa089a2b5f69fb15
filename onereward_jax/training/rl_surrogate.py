"""The path of the judge's gradient through the policy's trajectory: `config.rl.surrogate`.

    surrogate    the judge sees               gradient with respect to the velocities v_i
    "single"     x'_0 = x_t - σ_t v_t         -σ_t at t
    "endpoint"   x_0, the finished sample     -σ_t at t
    "several"    x_0                          -σ_i / K at each of K steps i
    "sparse"     x_0                          -h_i H / H_K at each of K steps i
    "leap"       x_0                          two leaps, from x_k to x_j to x_0: see `_leap`

h_i = σ_i - σ_{i+1}; H and H_K are the sums of h over [t1, t2] and over the K steps. Inputs x_i
carry no gradient, except x_j in "leap".

"single" is Algorithm 1 of OneReward (arXiv 2508.21066). The others finish the rollout without
gradient, show the judge its end, and differentiate a shorter path: the latent connector of
LeapAlign (arXiv 2604.15311). "endpoint" is one leap of it. "several" averages K such leaps on one
rollout: this weighting is ours. "sparse" is FlowBP-Sparse (arXiv 2606.11075): Euler weights, full
rescaling, and active steps drawn late-biased. "sparse" and "leap" follow the code published with
FlowBP (github.com/RuoyuWang-2077/FlowBP), which has LeapAlign as a baseline. DRTune (arXiv
2405.00760) also stops the inputs of K steps, but shows the judge a prediction: it is none of these.

Shapes: b batch, n image tokens, c channels of a latent token, k active steps, points of the grid.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, PRNGKeyArray

from onereward_jax.common.rng import stream
from onereward_jax.policy import euler_step, predict_x0
from onereward_jax.policy.sampler import VelocityFn
from onereward_jax.training.rl_config import RLConfig

LATE_BIAS = 2.0
"""FlowBP-Sparse draws step i of the grid (from 0) with a weight proportional to (i + 1)²."""

LEAST_DISTANCE = 0.1
"""τ of LeapAlign: shorter distances between a leap and the rollout count as τ."""


class Trajectory(NamedTuple):
    """A finished rollout of the policy, without gradient.

    Attributes:
      finished: x_0.
      latents: x_i of the active steps, from noise to image.
      sigmas: σ_i of the active steps.
      weights: weight of -v_i in the surrogate of x_0; not used by "leap".
    """

    finished: Float32[Array, "b n c"]
    latents: Float32[Array, "k b n c"]
    sigmas: Float32[Array, "k"]
    weights: Float32[Array, "k"]


class Prediction(NamedTuple):
    """Clean latents with the gradient of the surrogate.

    Attributes:
      clean: what is decoded for the judge.
      velocities: differentiable velocities at the first active steps, with inputs that carry no
        gradient: all steps, of "leap" the first.
      weight: weight of the sample's loss, without gradient; None: 1.
    """

    clean: Float32[Array, "b n c"]
    velocities: Float32[Array, "k b n c"]
    weight: Float32[Array, "b"] | None


def active_steps(config: RLConfig) -> int:
    """K: forward passes with gradient per sample."""
    counts = {"single": 1, "endpoint": 1, "leap": 2}
    return counts.get(config.surrogate, config.active_steps)


def policy_steps(config: RLConfig) -> float:
    """Mean number of steps of the policy's rollout."""
    if config.surrogate == "single":
        return (config.t1 + config.t2) / 2
    return float(config.num_steps)


def draw_active(
    config: RLConfig, key: PRNGKeyArray, step: Int32[Array, ""], first: Int32[Array, ""]
) -> Int32[Array, "k"]:
    """K different steps in [t1, t2], ascending.

    Uniform and with `first` among them, where "single" would predict; late-biased for "sparse".
    """
    steps = jnp.arange(config.t1, config.t2 + 1)
    # The largest of scores with Gumbel noise: a draw without replacement.
    scores = jax.random.gumbel(stream(key, "active_steps", step), steps.shape)
    if config.surrogate == "sparse":
        scores = scores + LATE_BIAS * jnp.log(steps + 1.0)
    else:
        scores = jnp.where(steps == first, jnp.inf, scores)
    chosen = jax.lax.top_k(scores, active_steps(config))[1]
    return jnp.sort(config.t1 + chosen)


def step_weights(
    config: RLConfig, sigmas: Float32[Array, "points"], active: Int[Array, "k"]
) -> Float32[Array, "k"]:
    """Weights of -v_i in the surrogate of x_0, see the table above."""
    if config.surrogate == "sparse":
        widths = sigmas[active] - sigmas[active + 1]
        return widths * (sigmas[config.t1] - sigmas[config.t2 + 1]) / jnp.sum(widths)
    return sigmas[active] / active.size


def predict_clean(
    config: RLConfig,
    velocity: VelocityFn,
    latents: Float32[Array, "b n c"],
    sigma: Float32[Array, ""],
    trajectory: Trajectory | None,
) -> Prediction:
    """Clean latents with the gradient of `config.surrogate`.

    Args:
      config: static.
      velocity: the policy's guided velocity, differentiated.
      latents, sigma: x_t and σ_t; used by "single".
      trajectory: the finished rollout; None for "single".
    """
    if trajectory is None:
        levels = jnp.broadcast_to(sigma, latents.shape[:1])
        found = velocity(latents, levels)
        return Prediction(predict_x0(latents, found, levels), found[None], None)
    if config.surrogate == "leap":
        return _leap(config, velocity, trajectory)
    found = velocities_at(velocity, trajectory.latents, trajectory.sigmas)
    surrogate = -jnp.einsum("k,kbnc->bnc", trajectory.weights, found, precision="highest")
    return Prediction(with_gradient_of(surrogate, trajectory.finished), found, None)


def velocities_at(
    velocity: VelocityFn, latents: Float32[Array, "k b n c"], sigmas: Float32[Array, "k"]
) -> Float32[Array, "k b n c"]:
    """v_i at each x_i, one after the other: K steps take the memory of one.

    The forward pass is repeated in the backward pass; where the values are not used, XLA removes
    the first, so the gradient costs no more than that of one batch.
    """

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one(_: None, step: tuple[Array, Array]) -> tuple[None, Array]:
        current, sigma = step
        return None, velocity(current, jnp.broadcast_to(sigma, current.shape[:1]))

    return jax.lax.scan(one, None, (latents, sigmas))[1]


@jax.custom_jvp
def with_gradient_of(
    surrogate: Float[Array, "*shape"], value: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """`value`, bit for bit, with the gradient of `surrogate` instead of its own."""
    return value


@with_gradient_of.defjvp
def _with_tangent_of(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple:
    return primals[1], tangents[0]


def _leap(config: RLConfig, velocity: VelocityFn, trajectory: Trajectory) -> Prediction:
    """LeapAlign: x_k -> x_j -> x_0 in two leaps, each ending on the rollout.

        x'_j = x_k + (σ_j - σ_k) v(x_k),    x'_0 = x_j - σ_j v(x_j)

    x_j has the rollout's value and the gradient of x'_j; as input of the network that gradient is
    multiplied by α = `leap_discount` (the nested term), not where it is the start of the leap. A
    sample weighs 1 / (d_j + d_0) with d = max(mean |x' - x|, τ).
    """

    @jax.checkpoint
    def at(current: Array, sigma: Array) -> Array:
        return velocity(current, jnp.broadcast_to(sigma, current.shape[:1]))

    (first, second), finished = trajectory.latents, trajectory.finished
    start, middle = trajectory.sigmas
    leaving = at(first, start)
    landing = euler_step(first, leaving, start, middle)
    network_input = with_gradient_of(config.leap_discount * landing, second)
    predicted = predict_x0(with_gradient_of(landing, second), at(network_input, middle), middle)

    def distance(found: Array, known: Array) -> Float32[Array, "b"]:
        apart = jnp.mean(jnp.abs(found - known), axis=(1, 2))
        return jnp.maximum(jax.lax.stop_gradient(apart), LEAST_DISTANCE)

    weight = 1.0 / (distance(landing, second) + distance(predicted, finished))
    return Prediction(with_gradient_of(predicted, finished), leaving[None], weight)
