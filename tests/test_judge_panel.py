"""Several judges and both orders as one reward: formulas, symmetry, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from onereward_jax.reward import QueryBatch
from onereward_jax.reward.judge_panel import (
    ENSEMBLES,
    LEAST,
    JudgePanel,
    both_orders,
    combined,
    panel_of,
)

PANEL = JudgePanel(tiny_models.models().scorer, judges=2, orders="both", ensemble="mean")


def random_answers(*shape):
    log_p = jax.nn.log_softmax(2.0 * jax.random.normal(jax.random.key(0), (*shape, 3)))
    return log_p[..., 0], log_p[..., 1]


def test_swapped_roles_swap_both_orders():
    """Judging (b, a) instead of (a, b) turns the orders; P("Yes") becomes P("No")."""
    yes, no = random_answers(5, 2, 3)
    log_yes, log_no = both_orders(yes, no)
    np.testing.assert_allclose(
        jnp.exp(log_yes), (jnp.exp(yes[:, 0]) + jnp.exp(no[:, 1])) / 2, rtol=1e-6
    )
    turned_yes, turned_no = both_orders(yes[:, ::-1], no[:, ::-1])
    np.testing.assert_allclose(turned_yes, log_no, rtol=1e-6)
    np.testing.assert_allclose(turned_no, log_yes, rtol=1e-6)


def test_ensembles_by_their_formulas():
    yes, no = random_answers(3, 5, 4)
    p = np.exp(yes)
    found = {name: jnp.exp(combined(yes, no, name, 0.5)[0]) for name in ENSEMBLES}
    np.testing.assert_allclose(found["mean"], p.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["least"], p.min(0), rtol=1e-5)
    expected = np.maximum(p.mean(0) - 0.5 * p.std(0), LEAST)
    np.testing.assert_allclose(found["spread"], expected, rtol=1e-4)
    assert np.all(found["least"] <= found["mean"] + 1e-6)
    strictest = np.take_along_axis(np.exp(no), p.argmin(0)[None], 0)[0]
    np.testing.assert_allclose(jnp.exp(combined(yes, no, "least", 0.5)[1]), strictest, rtol=1e-5)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_equal_judges_are_one_judge(name):
    """Also their gradient, each having its share of it; rounding is no spread."""
    yes, no = random_answers(5, 4)

    def reward(yes):
        return jnp.sum(jnp.exp(combined(jnp.stack([yes] * 3), jnp.stack([no] * 3), name, 2.0)[0]))

    np.testing.assert_allclose(
        combined(jnp.stack([yes] * 3), jnp.stack([no] * 3), name, 2.0), (yes, no), atol=1e-5
    )
    np.testing.assert_allclose(jax.grad(reward)(yes), jnp.exp(yes), rtol=1e-4)


def test_a_spread_beyond_the_mean_still_trains():
    """mean - k σ below 0: the reward is LEAST, the gradient that of the formula."""
    p = jnp.array([0.6, 0.01, 0.01])[:, None, None]

    def reward(p):
        return jnp.exp(combined(jnp.log(p), jnp.log(1 - p), "spread", 2.0)[0]).sum()

    assert float(reward(p)) == pytest.approx(LEAST, abs=1e-7)
    slope = jax.grad(lambda p: (jnp.mean(p, 0) - 2.0 * jnp.std(p, 0)).sum())(p)
    np.testing.assert_allclose(jax.grad(reward)(p), slope, rtol=1e-4)


def test_one_judge_in_one_order_is_the_scorer_itself():
    scorer = tiny_models.models().scorer
    assert panel_of(scorer, judges=1, orders="one", ensemble="least", spread=1.0) is scorer


def test_the_panel_asks_every_judge_in_both_orders():
    """Value and gradient of a compiled panel of two, against a single judge asked four times."""
    batch = tiny_models.rl_batch(4)
    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    images = jnp.asarray(batch["image"]), jnp.asarray(batch["target"])
    real = np.where(batch["dimension_mask"], 1.0, 0.0)
    judges = [tiny_models.weights()[3], tiny_models.lively(tiny_models.weights()[3], 9, 0.05)]

    def reward(scorer, params, a, b):
        return jnp.exp(jnp.stack(scorer.score(params, a, b, queries)))

    def total(a, params):
        found = reward(PANEL, params, a, images[1])
        return jnp.sum(jnp.where(real > 0, found[0], 0.0)), found

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *judges)
    (_, found), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(images[0], stacked)

    def plainly(a, judge, b):
        return reward(PANEL.scorer, judge, a, b)

    def single(a, judge):
        forth, back = plainly(a, judge, images[1]), plainly(images[1], judge, a)
        both = (forth + back[::-1]) / 2.0
        return jnp.sum(jnp.where(real > 0, both[0], 0.0)), both

    ask = jax.jit(jax.value_and_grad(single, has_aux=True))
    (one, slope_one), (two, slope_two) = (ask(images[0], judge) for judge in judges)
    expected = (one[1] + two[1]) / 2.0
    np.testing.assert_allclose(found * real, expected * real, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(slope, (slope_one + slope_two) / 2.0, rtol=1e-3, atol=1e-6)
