"""Flow-GRPO's sampling steps: their probabilities, their marginals, and the clipped loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from onereward_jax.policy import NoiseSchedule, euler_step
from onereward_jax.training.methods.flow_sde import (
    clipped_loss,
    step_distribution,
    step_divergence,
    step_log_prob,
)

RNG = np.random.default_rng(1)
SIGMAS = NoiseSchedule(shift=3.0).sigmas(4, 16)


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def of_steps(indices):
    """σ, σ', and the second level, for steps of the grid."""
    grid, indices = jnp.asarray(SIGMAS), jnp.asarray(indices)
    return grid[indices], grid[indices + 1], grid[1]


def test_a_step_is_the_papers_and_its_probability_scipys():
    x, v, following = drawn(3, 4, 2), drawn(3, 4, 2), drawn(3, 4, 2)
    weights = jnp.array([[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.5, 0, 0.5, 0]])
    mean, deviation = step_distribution(x, v, *of_steps([0, 1, 2]), 0.7)
    log_prob = step_log_prob(following, mean, deviation, weights)
    divergence = step_divergence(mean, mean + 0.1, deviation, weights)
    for row, (sigma, after) in enumerate(zip(SIGMAS[:3].astype(float), SIGMAS[1:4].astype(float))):
        rest = 1 - (SIGMAS[1] if row == 0 else sigma)
        scale, step = 0.7 * np.sqrt(sigma / rest), after - sigma
        score_part = scale**2 / (2 * sigma) * (x[row] + (1 - sigma) * v[row])
        np.testing.assert_allclose(
            mean[row], x[row] + (v[row] + score_part) * step, rtol=1e-5, atol=1e-6
        )
        wanted = scipy.stats.norm(np.asarray(mean[row]), scale * np.sqrt(-step))
        kept = np.asarray(weights[row]) > 0
        np.testing.assert_allclose(
            log_prob[row], wanted.logpdf(np.asarray(following[row]))[kept].mean(), rtol=1e-4
        )
        np.testing.assert_allclose(divergence[row], 0.01 / (2 * scale**2 * -step), rtol=1e-3)


def test_without_noise_and_at_the_last_step_it_is_euler():
    x, v = drawn(4, 3, 2), drawn(4, 3, 2)
    levels = of_steps([0, 1, 2, 3])
    mean, deviation = step_distribution(x, v, *levels, 0.0)
    np.testing.assert_allclose(mean, euler_step(x, v, *levels[:2]), rtol=1e-6)
    np.testing.assert_array_equal(deviation, 0.0)
    mean, deviation = step_distribution(x, v, *levels, 0.7)
    np.testing.assert_allclose(mean[3], euler_step(x, v, *levels[:2])[3], rtol=1e-6)
    assert deviation[3] == 0.0 and np.all(deviation[:3] > 0.0)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_noise_does_not_change_what_is_sampled(noise):
    """Samples of N(0, 0.5²) by its exact velocity: the SDE ends where the ODE ends."""
    sigmas = jnp.asarray(NoiseSchedule().sigmas(200, 16))
    count, spread = 20000, 0.5

    def step(x, index):
        sigma, after = sigmas[index], sigmas[index + 1]
        variance = (1 - sigma) ** 2 * spread**2 + sigma**2
        v = (sigma - (1 - sigma) * spread**2) / variance * x
        wide = [jnp.broadcast_to(level, (count,)) for level in (sigma, after)]
        mean, deviation = step_distribution(x, v, *wide, sigmas[1], noise)
        noises = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), x.shape)
        return mean + deviation[:, None, None] * noises, None

    start = jax.random.normal(jax.random.key(1), (count, 1, 1))
    found = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(200))[0])(start)
    assert float(jnp.std(found)) == pytest.approx(spread, rel=0.03)


def test_ratios_are_clipped_only_where_they_went_the_wanted_way():
    """At ratio 1 the loss is -A with slope -A; beyond the range there is a slope only back."""
    ratio = jnp.log(jnp.array([1.0, 1.0, 1.3, 1.3, 0.7, 0.7]))
    advantage = jnp.array([2.0, -1.0, 2.0, -1.0, 2.0, -1.0])
    found = clipped_loss(ratio, advantage, 0.2)
    np.testing.assert_allclose(found, [-2.0, 1.0, -2.4, 1.3, -1.4, 0.8], rtol=1e-5)
    slopes = jax.grad(lambda r: jnp.sum(clipped_loss(r, advantage, 0.2)))(ratio)
    np.testing.assert_allclose(slopes, [-2.0, 1.0, 0.0, 1.3, -1.4, 0.0], rtol=1e-5, atol=1e-6)
