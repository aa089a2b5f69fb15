"""How dimensions share an update: weights and projections by hand, and inside the RL step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rl_step
import test_training_loop
import tiny_models

from onereward_jax.parallel import replicated
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, TASKS, Dimension, Task
from onereward_jax.training.algorithm import FROZEN
from onereward_jax.training.checkpoint import Checkpointer, IncompatibleCheckpoint
from onereward_jax.training.metrics import Mean, by_task, scalars
from onereward_jax.training.rl_balance import (
    Balance,
    balanced_loss,
    dimension_weights,
    first_rewards,
    follow_rewards,
    mean_over_dimensions,
    project_conflicts,
    projection_orders,
    table_weights,
)
from onereward_jax.training.task_gradients import gradients_by_task, sum_without_conflicts
from onereward_jax.training.train_state import shardings_of

EQUAL = (1.0,) * len(Dimension)
FILL, REMOVAL = TASKS.index(Task.FILL), TASKS.index(Task.REMOVAL)
MASK = jnp.array([[True] * 4, [True, False, False, False]])
LOSSES = jnp.array([[0.3, 0.0, 0.1, 0.25], [0.2, jnp.nan, jnp.nan, jnp.inf]])
TABLE = (len(TASKS), MAX_DIMENSIONS)
KEYS = jax.random.split(jax.random.key(5), 2)


def hinge_loss(probability, mask, upper_bound, weights=None):
    known = ~jnp.isnan(probability)  # the logarithm of the others has no slope
    log_yes = jnp.where(known, jnp.log(jnp.where(known, probability, 1.0)), jnp.nan)
    losses = FROZEN.loss(log_yes, jnp.zeros_like(log_yes), upper_bound)
    return mean_over_dimensions(losses, mask, weights)


def test_eq_5_by_hand():
    probability = jnp.array([[0.2, 0.9, 0.5, 0.4], [0.3, jnp.nan, jnp.nan, jnp.nan]])
    np.testing.assert_allclose(
        hinge_loss(probability, MASK, 0.5), [(0.3 + 0.0 + 0.0 + 0.1) / 4, 0.2], rtol=1e-6
    )
    slope = jax.grad(lambda p: hinge_loss(p, MASK, 0.5).sum())(probability)
    np.testing.assert_allclose(slope, [[-0.25, 0, 0, -0.25], [-1, 0, 0, 0]], rtol=1e-6)


def test_weights_of_dimensions_weigh_the_mean():
    """By hand; equal ones are the plain mean bit for bit, one of 0 stands for no question."""
    probability = jnp.array([[0.2, 0.9, 0.5, 0.4], [0.3, jnp.nan, jnp.nan, jnp.nan]])
    task = jnp.array([FILL, REMOVAL])

    def losses(*weights):
        chosen = dimension_weights(weights, task)
        return hinge_loss(probability, MASK, 0.5, chosen)

    # structure, consistency, text alignment, aesthetics, removal quality
    found = losses(3.0, 1.0, 0.0, 2.0, 0.5)
    np.testing.assert_allclose(found, [(3 * 0.3 + 2 * 0.1) / 6, 0.2], rtol=1e-6)
    plain = hinge_loss(probability, MASK, 0.5)
    for last in (7.0, 1.0):
        np.testing.assert_array_equal(losses(7.0, 7.0, 7.0, 7.0, last), plain)
    weights = (1.0, 1.0, 0.0, 3.0, 1.0)
    slope = jax.grad(lambda p: hinge_loss(p, MASK, 0.5, dimension_weights(weights, task)).sum())(
        probability.at[0, 2].set(jnp.nan)
    )
    np.testing.assert_allclose(slope, [[-0.2, 0, 0, -0.6], [-1, 0, 0, 0]], rtol=1e-6)


def loss_and_slope(balance, losses=LOSSES, weights=None):
    """Loss and gradient per sample, for images that are the losses themselves."""

    def total(losses):
        loss, _ = balanced_loss(balance, lambda x: (x, None), losses, MASK, weights, KEYS)
        return jnp.sum(loss), loss

    (_, loss), slope = jax.value_and_grad(total, has_aux=True)(losses)
    return loss, slope


def test_the_worst_first_lies_between_the_mean_and_the_largest_loss():
    """Its gradient is that of a smooth maximum; a weight of 0 excludes also here."""
    mean, largest = [0.65 / 4, 0.2], [0.3, 0.2]
    for temperature, expected in ((1e5, mean), (1e-4, largest)):
        loss, slope = loss_and_slope(Balance("worst", temperature=temperature))
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(jnp.sum(slope, axis=1), 1.0, rtol=1e-6)
    _, slope = loss_and_slope(Balance("worst", temperature=0.1))
    smooth = lambda x: 0.1 * jax.nn.logsumexp(x / 0.1) - 0.1 * jnp.log(4.0)
    np.testing.assert_allclose(slope[0], jax.grad(smooth)(LOSSES[0]), rtol=1e-5)
    np.testing.assert_array_equal(slope[1], [1, 0, 0, 0])

    weights = jnp.array([[0.0, 0.5, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    for largest in (0.3, 50.0, jnp.nan):
        losses = LOSSES.at[0, 0].set(largest)
        loss, slope = loss_and_slope(Balance("worst"), losses, weights)
        softmax = np.array([0.5, np.exp(1.0), np.exp(2.5)])
        np.testing.assert_allclose(slope[0, 1:], softmax / softmax.sum(), rtol=1e-5)
        assert slope[0, 0] == 0.0 and np.all(np.isfinite(loss))


def test_floors_weigh_what_lies_below_continuously():
    balance, running = Balance("floors", floor=0.5, gain=10.0), first_rewards()
    means = jnp.linspace(0.0, 1.0, 1001)
    weights = jax.vmap(
        lambda mean: table_weights(
            balance, running._replace(mean=jnp.full_like(running.mean, mean))
        )
    )(means)[:, 0, 0]
    np.testing.assert_allclose(weights, 1 + 10 * np.maximum(0, 0.5 - means) / 0.5, rtol=1e-5)
    assert np.max(np.abs(np.diff(weights))) < 10.0 / 0.5 * 0.00101
    assert np.all(weights[500:] == 1.0)

    # consistency of fill falls: it alone weighs more, in fill alone
    low = running._replace(mean=running.mean.at[FILL, 1].set(0.4))
    task = jnp.array([FILL, REMOVAL])
    found = dimension_weights(EQUAL, task, balance, low)
    np.testing.assert_allclose(found, [[1, 3, 1, 1], [1, 0, 0, 0]], rtol=1e-5)
    excluded = dimension_weights((1.0, 0.0, 1.0, 0.5, 1.0), task, balance, low)
    np.testing.assert_allclose(excluded, [[1, 0, 1, 0.5], [1, 0, 0, 0]], rtol=1e-5)


def test_the_spread_makes_dimensions_comparable():
    """Rewards whose deviations differ by a factor get weights that differ by its inverse."""
    rewards = np.random.default_rng(0).uniform(size=(500, MAX_DIMENSIONS)).astype(np.float32)
    rewards[:, 1] = 0.5 + (rewards[:, 1] - 0.5) / 4
    rewards[:, 2] = 0.7  # always the same answer: a bounded weight
    running = first_rewards()
    cells = jnp.zeros(100, jnp.int32), jnp.ones((100, MAX_DIMENSIONS), bool)
    for part in np.split(rewards, 5):
        measured = by_task(jnp.array(part), *cells), by_task(jnp.array(part) ** 2, *cells)
        running = follow_rewards(running, *measured, 50)
    weights = table_weights(Balance("spread"), running)[FILL]
    assert weights[1] / weights[0] == pytest.approx(4.0, rel=0.1)
    assert weights[2] <= 50.0 and np.all(np.isfinite(weights))


def test_the_running_rewards_count_samples():
    """n equal samples at once are n steps of one; cells without samples stay bit for bit."""
    start = first_rewards()
    start = start._replace(mean=start.mean + 0.123)
    count = jnp.zeros_like(start.mean).at[FILL, :2].set(3.0)
    at_once = follow_rewards(start, Mean(0.2 * count, count), Mean(0.04 * count, count), 10)
    one, running = jnp.minimum(count, 1.0), start
    for _ in range(3):
        running = follow_rewards(running, Mean(0.2 * one, one), Mean(0.04 * one, one), 10)
    test_rl_step.assert_close(at_once, running, 1e-6)
    np.testing.assert_allclose(at_once.mean[FILL, 0], 0.2 + 0.9**3 * (0.623 - 0.2), rtol=1e-6)
    unseen = np.asarray(count == 0)
    np.testing.assert_array_equal(at_once.mean[unseen], start.mean[unseen])


def pcgrad(gradients, orders):
    """Algorithm 1 of arXiv 2001.06782 on vectors [n, x]."""
    projected = np.array(gradients, np.float64)
    for i, order in enumerate(orders):
        for j in order:
            if j != i and (product := projected[i] @ gradients[j]) < 0:
                projected[i] -= product / (gradients[j] @ gradients[j]) * gradients[j]
    return projected.sum(axis=0)


def test_projection_is_pcgrad():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 5, 3)).astype(np.float32)  # crowded: many conflicts
    gradients[0, 2] = 0.0
    orders = np.asarray(projection_orders(jax.random.split(jax.random.key(0), 20), 5))
    assert len({tuple(order) for order in orders.reshape(-1, 5)}) > 60
    products = np.einsum("bix,bjx->bij", gradients, gradients)
    shares = project_conflicts(jnp.array(products), jnp.array(orders))
    found = np.einsum("bi,bix->bx", shares, gradients)
    expected = [pcgrad(*pair) for pair in zip(gradients, orders)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(found - gradients.sum(axis=1)).max() > 1.0
    agreeing = np.abs(products)
    np.testing.assert_array_equal(project_conflicts(jnp.array(agreeing), jnp.array(orders)), 1.0)


def test_tasks_are_projected_by_all_their_weights():
    """Gradients of tasks from masked cotangents, and PCGrad over all leaves together."""
    rng = np.random.default_rng(2)
    task = jnp.array([0, 2, 0, 3, 2, 0])
    inputs = rng.normal(size=(6, 5)).astype(np.float32)
    inputs[1] = -inputs[0]  # a conflict between tasks 0 and 2
    mesh = test_rl_step.mesh_of((1, 1, 1))
    params = jax.device_put({"a": jnp.ones((2, 1)), "b": jnp.ones(3)}, replicated(mesh))

    params_like = shapes_of(params)

    def losses(params):
        return jnp.array(inputs) @ jnp.concatenate([params["a"].ravel(), params["b"]])

    @jax.jit
    def projected(params):
        _, pull_back = jax.vjp(losses, params)
        gradients = gradients_by_task(lambda ones: pull_back(ones)[0], task, params_like)
        return gradients, sum_without_conflicts(gradients, KEYS[0])

    gradients, total = projected(params)
    expected = np.stack([inputs[np.asarray(task) == row].sum(axis=0) for row in range(len(TASKS))])
    found = np.concatenate([gradients["a"][..., 0], gradients["b"]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    (order,) = np.asarray(projection_orders(KEYS[:1], len(TASKS)))
    total = np.concatenate([total["a"].ravel(), total["b"]])
    np.testing.assert_allclose(total, pcgrad(expected, order), rtol=1e-4, atol=1e-5)
    assert np.abs(total - expected.sum(axis=0)).max() > 0.1


def shapes_of(tree):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_dimensions_are_projected_at_the_image_and_the_value_stays(kind):
    """Against vectors in numpy; padded and excluded dimensions take no part."""
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(2, 4, 6)).astype(np.float32)
    direction[0, 3] -= 2 * direction[0, 0]  # a conflict
    image = jnp.array(rng.normal(size=(2, 6)), jnp.float32)
    weights = jnp.array([[1.0, 0.5, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])

    def losses_of(image):
        losses = jnp.tanh(0.3 * jnp.einsum("bex,bx->be", jnp.array(direction), image))
        return jnp.where(MASK & (weights > 0), losses, jnp.nan), "others"

    def total(image, balance):
        loss, others = balanced_loss(balance, losses_of, image, MASK, weights, KEYS)
        assert others == "others"
        return jnp.sum(3.0 * loss), loss

    gradient = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    plain, value = gradient(image, Balance(kind))
    found, same = gradient(image, Balance(kind, project="dimensions"))
    np.testing.assert_array_equal(same, value)
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-5)  # one dimension: the mean

    losses = np.asarray(losses_of(image)[0][0], np.float64)
    kept = [0, 1, 3]
    shares = np.asarray(weights[0], np.float64)
    if kind == "worst":
        shares = shares * np.exp((losses - np.nanmax(losses)) / 0.1)
    shares = shares[kept] / shares[kept].sum()
    vectors = (shares * 0.3 * (1 - losses[kept] ** 2))[:, None] * direction[0, kept]
    assert np.min(vectors @ vectors.T) < 0
    order = np.asarray(projection_orders(KEYS, 4)[0])
    orders = [[kept.index(j) for j in order[i] if j in kept] for i in kept]
    np.testing.assert_allclose(found[0], 3.0 * pcgrad(vectors, orders), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain[0], 3.0 * vectors.sum(axis=0), rtol=1e-4, atol=1e-6)


CONFIG = dataclasses.replace(
    test_rl_step.CONFIG, balance=Balance("floors", floor=0.9, window=4, project="both")
)


@pytest.fixture(scope="module")
def history():
    """Two steps with floors and both projections on one device; all rewards are below the floor."""
    return test_rl_step.run(CONFIG)[1]


def test_the_table_is_that_of_the_measured_rewards(history):
    rewards, expected = history[0][1], first_rewards()
    for row, task in enumerate(TASKS):
        count = int(np.sum(tiny_models.rl_batch()["task"] == row))
        for column, dimension in enumerate(DIMENSIONS[task]):
            mean = rewards[f"reward/{task.value}/{dimension.value}"]
            kept = 0.75**count
            new = kept * 0.5 + (1 - kept) * mean
            expected = expected._replace(mean=expected.mean.at[row, column].set(new))
    np.testing.assert_allclose(history[0][0].running_rewards.mean, expected.mean, rtol=1e-5)
    assert "squared_reward" not in rewards
    assert not test_rl_step.same(history[0][0].running_rewards, history[1][0].running_rewards)


def test_floors_and_projections_are_the_same_on_every_mesh_and_in_parts(history):
    parts = dataclasses.replace(CONFIG, microbatches=2)
    _, found = test_rl_step.run(parts, (2, 2, 2))
    for (ours, our_metrics), (single, single_metrics) in zip(found, history, strict=True):
        test_rl_step.assert_close(ours, single, 2e-5)
        assert our_metrics == pytest.approx(single_metrics, rel=2e-4, abs=1e-5)


def test_the_table_resumes_bit_for_bit_and_a_refused_step_leaves_it(history):
    placed = lambda: jax.device_put(history[0][0], shardings_of(test_rl_step.first_state(CONFIG)))
    step, frozen = test_rl_step.step_of(CONFIG), tiny_models.frozen()
    following, _ = step(placed(), frozen, test_rl_step.batch_on(seed=1), test_rl_step.KEY)
    assert test_rl_step.same(following, history[1][0])
    image = tiny_models.rl_batch()["image"]
    image[3, 5, 5, 1] = np.nan
    broken = test_rl_step.batch_on(image=image)
    following, metrics = step(placed(), frozen, broken, test_rl_step.KEY)
    assert scalars(metrics) == {"refused": 1.0}
    assert test_rl_step.same(following.running_rewards, history[0][0].running_rewards)


def test_the_table_is_saved_and_a_checkpoint_without_it_is_refused(tmp_path):
    mesh = test_rl_step.mesh_of((1, 1, 1))
    table = jax.device_put(jax.tree.map(lambda leaf: leaf + 0.1, first_rewards()), replicated(mesh))
    plain = test_training_loop.fresh(mesh)
    following = plain._replace(running_rewards=table)
    abstract = shapes_of(following)
    data, about = test_training_loop.data(), test_training_loop.ABOUT
    for name, state in (("plain", plain), ("following", following)):
        with Checkpointer(tmp_path / name, about) as checkpointer:
            checkpointer.save(state, data)
    with Checkpointer(tmp_path / "following", about) as checkpointer:
        assert test_rl_step.same(checkpointer.restore(abstract, data), following)
    with (
        Checkpointer(tmp_path / "plain", about) as checkpointer,
        pytest.raises(IncompatibleCheckpoint, match="running_rewards.mean has shape None"),
    ):
        checkpointer.restore(abstract, data)


def test_the_mean_keeps_the_state_as_it_was():
    assert test_rl_step.first_state().running_rewards is None


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"weights": "median"}, "balance is 'median': choose one of mean, worst, floors, spread"),
        ({"project": "all"}, "project_conflicts is 'all': choose one of none, dimensions, tasks"),
        ({"temperature": 0.0}, "balance_temperature is 0.0"),
        ({"floor": 1.5}, "floor is 1.5"),
        ({"gain": -1.0}, "floor_gain is -1.0"),
        ({"window": 0}, "balance_window is 0"),
    ],
)
def test_a_wrong_setting_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Balance(**fields)
