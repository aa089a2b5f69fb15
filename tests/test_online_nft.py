"""DiffusionNFT: its loss by hand, who pulls and who pushes, and the step on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.training.methods.diffusion_nft_loss import (
    nft_loss,
    old_policy_decay,
    optimality,
)
from onereward_jax.training.methods.group_advantages import advantages, ring_win_rates

RNG = np.random.default_rng(0)


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def by_hand(velocity, old, noisy, clean, sigma, r, weights, beta):
    """The paper's loss, one sample at a time, in float64."""
    losses = []
    for v, v_old, x, x0, s, good, kept in zip(velocity, old, noisy, clean, sigma, r, weights):
        v, v_old, x, x0 = (np.float64(array)[kept > 0] for array in (v, v_old, x, x0))
        errors = []
        for implicit in ((1 - beta) * v_old + beta * v, (1 + beta) * v_old - beta * v):
            difference = x - s * implicit - x0
            errors.append(np.mean(difference**2) / max(np.mean(np.abs(difference)), 1e-5))
        losses.append(5.0 * (good * errors[0] + (1 - good) * errors[1]) / beta)
    return losses


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_the_loss_is_the_papers(beta):
    arrays = [drawn(3, 5, 4) for _ in range(4)]
    sigma, r = jnp.array([1.0, 0.5, 0.1]), jnp.array([1.0, 0.3, 0.0])
    weights = jnp.array([[1.0, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]])
    weights = weights / weights.sum(axis=1, keepdims=True)
    found = nft_loss(*arrays, sigma, r, weights, beta, 5.0)
    np.testing.assert_allclose(found, by_hand(*arrays, sigma, r, weights, beta), rtol=1e-5)


def test_good_samples_pull_bad_ones_push_and_even_ones_do_neither():
    """At θ = old: along the flow-matching gradient for r = 1, against it for r = 0, else none."""
    old, clean, noise = drawn(3, 5, 4), drawn(3, 5, 4), drawn(3, 5, 4)
    sigma, beta = jnp.full(3, 0.3), 0.4
    noisy = 0.7 * clean + 0.3 * noise
    weights = jnp.float32(jnp.arange(15).reshape(3, 5) % 5 > 1) / 3

    def total(velocity):
        r = jnp.array([1.0, 0.0, 0.5])
        return jnp.sum(nft_loss(velocity, old, noisy, clean, sigma, r, weights, beta, 5.0))

    def matching(velocity):
        return jnp.sum(jnp.square(velocity - (noise - clean)) * weights[..., None])

    found, pull = jax.grad(total)(jnp.asarray(old)), jax.grad(matching)(jnp.asarray(old))
    scale = jnp.sum(found[0] * pull[0]) / jnp.sum(pull[0] * pull[0])
    assert scale > 0.01
    np.testing.assert_allclose(found[0], scale * pull[0], atol=1e-5)
    scale = jnp.sum(found[1] * pull[1]) / jnp.sum(pull[1] * pull[1])
    assert scale < -0.01
    np.testing.assert_allclose(found[1], scale * pull[1], atol=1e-5)
    np.testing.assert_allclose(found[2], 0.0, atol=1e-5)
    assert not np.any(found[weights == 0])


def test_advantages_are_relative_to_the_group_and_give_optimality():
    rewards = jnp.array([0.2, 0.4, 0.9, 0.9, 0.1, 0.1])
    found = advantages(rewards, 2)
    wanted = np.array([-0.1, 0.1, 0, 0, 0, 0]) / (np.std(rewards) + 1e-4)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.reshape(3, 2).sum(axis=1), 0.0, atol=1e-6)
    np.testing.assert_array_equal(advantages(jnp.full(4, 0.3), 2), 0.0)
    r = optimality(jnp.array([-9.0, -5.0, 0.0, 1.0, 9.0]), 5.0)
    np.testing.assert_allclose(r, [0.0, 0.0, 0.5, 0.6, 1.0])


def test_in_a_ring_every_comparison_counts_for_both():
    """Two groups of three: i against i + 1; the last against the first."""
    yes = jnp.array([[0.9], [0.6], [0.2], [0.5], [0.5], [0.3]])
    found = ring_win_rates(jnp.log(yes), jnp.log1p(-yes), 3, 1)
    wanted = [0.9 + 0.8, 0.6 + 0.1, 0.2 + 0.4, 0.5 + 0.7, 0.5 + 0.5, 0.3 + 0.5]
    np.testing.assert_allclose(found[:, 0], np.divide(wanted, 2), rtol=1e-5)


def test_the_old_policy_falls_behind_as_published():
    found = [float(old_policy_decay(0.5, jnp.int32(step))) for step in (0, 100, 499, 5000)]
    np.testing.assert_allclose(found, [0.0, 0.1, 0.499, 0.5])
