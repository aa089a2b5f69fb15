"""The loss of the RL step by hand, and its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.tasks import TASKS, Task
from onereward_jax.training.algorithm import FROZEN
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.rl_loss import dimension_weights, matching_shares, mean_over_dimensions


@pytest.mark.parametrize(
    "known, shares", [([1, 0, 0, 0], [4, 0, 0, 0]), ([1, 1, 0, 1], [4 / 3, 4 / 3, 0, 4 / 3])]
)
def test_the_flow_matching_loss_is_averaged_over_samples_with_a_target(known, shares):
    np.testing.assert_allclose(matching_shares(jnp.array(known, bool)), shares, rtol=1e-6)


def hinge_loss(probability, mask, upper_bound, weights=None):
    known = ~jnp.isnan(probability)  # the logarithm of the others has no slope
    log_yes = jnp.where(known, jnp.log(jnp.where(known, probability, 1.0)), jnp.nan)
    losses = FROZEN.loss(log_yes, jnp.zeros_like(log_yes), upper_bound)
    return mean_over_dimensions(losses, mask, weights)


def test_eq_5_by_hand():
    probability = jnp.array([[0.2, 0.9, 0.5, 0.4], [0.3, jnp.nan, jnp.nan, jnp.nan]])
    mask = jnp.array([[True] * 4, [True, False, False, False]])
    np.testing.assert_allclose(
        hinge_loss(probability, mask, 0.5), [(0.3 + 0.0 + 0.0 + 0.1) / 4, 0.2], rtol=1e-6
    )
    slope = jax.grad(lambda p: hinge_loss(p, mask, 0.5).sum())(probability)
    np.testing.assert_allclose(slope, [[-0.25, 0, 0, -0.25], [-1, 0, 0, 0]], rtol=1e-6)


def test_weights_of_dimensions_weigh_the_mean():
    """By hand; equal ones are the plain mean bit for bit, one of 0 stands for no question."""
    probability = jnp.array([[0.2, 0.9, 0.5, 0.4], [0.3, jnp.nan, jnp.nan, jnp.nan]])
    mask = jnp.array([[True] * 4, [True, False, False, False]])
    task = jnp.array([TASKS.index(Task.FILL), TASKS.index(Task.REMOVAL)])

    def losses(*weights):
        chosen = dimension_weights(weights, task)
        return hinge_loss(probability, mask, 0.5, chosen)

    # structure, consistency, text alignment, aesthetics, removal quality
    found = losses(3.0, 1.0, 0.0, 2.0, 0.5)
    np.testing.assert_allclose(found, [(3 * 0.3 + 2 * 0.1) / 6, 0.2], rtol=1e-6)
    plain = hinge_loss(probability, mask, 0.5)
    for last in (7.0, 1.0):
        np.testing.assert_array_equal(losses(7.0, 7.0, 7.0, 7.0, last), plain)
    weights = (1.0, 1.0, 0.0, 3.0, 1.0)
    slope = jax.grad(lambda p: hinge_loss(p, mask, 0.5, dimension_weights(weights, task)).sum())(
        probability.at[0, 2].set(jnp.nan)
    )
    np.testing.assert_allclose(slope, [[-0.2, 0, 0, -0.6], [-1, 0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"t1": 3, "t2": 2}, "t1"),
        ({"t2": 40}, "t2"),
        ({"ema_decay": 1.5}, "ema_decay"),
        ({"microbatches": 0}, "microbatches"),
    ],
)
def test_a_wrong_setting_is_named(fields, name):
    with pytest.raises(ValueError, match=name):
        RLConfig(**fields)
