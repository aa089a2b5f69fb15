"""The judge's training step: Eq. 3 in both orders, its measures, and its learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from compilations import compilations

from onereward_jax.parallel import make_mesh, shard_batch
from onereward_jax.reward import Jitter, QueryBatch
from onereward_jax.reward.judge_loader import abstract_reward_params
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task
from onereward_jax.training.metrics import scalars
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.preference_loss import (
    PairAnswers,
    preference_loss,
    preference_metrics,
    smoothed_label,
)
from onereward_jax.training.reward_step import (
    RewardConfig,
    first_reward_state,
    make_answers,
    make_reward_step,
)
from onereward_jax.training.train_state import shardings_of

CONFIG = RewardConfig(optimizer=OptimizerConfig(learning_rate=0.01, eps=1e-2, clip_norm=1e6))
SINGLE = (1, 1, 1)


@functools.cache
def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


@functools.cache
def step_of(config, sizes):
    return make_reward_step(tiny_models.models().scorer, config, mesh_of(sizes))


def first_state(sizes):
    mesh = mesh_of(sizes)
    wanted = shardings_of(abstract_reward_params(tiny_models.models().scorer, mesh))
    return first_reward_state(CONFIG, jax.device_put(tiny_models.weights()[3], wanted), mesh)


def pairs(size=8):
    """Pairs of several tasks and dimensions."""
    rng = np.random.default_rng(0)
    cells = [(task, place) for task in TASKS for place in range(len(DIMENSIONS[task]))]
    cells = [cells[(5 * index) % len(cells)] for index in range(size)]
    asked = tiny_models.queries().encode_dimensions(
        [task for task, _ in cells],
        [DIMENSIONS[task][place] for task, place in cells],
        [tiny_models.PROMPTS[0]] * size,
    )
    shape = (size, tiny_models.SIDE, tiny_models.SIDE, 3)
    return {
        "first": np.tanh(rng.normal(size=shape)).astype(np.float32),
        "second": np.tanh(rng.normal(size=shape)).astype(np.float32),
        "label": np.ones(size, np.float32),
        "task": np.array([TASKS.index(task) for task, _ in cells], np.int32),
        "dimension": np.array([place for _, place in cells], np.int32),
        "query_prefix": asked.prefix,
        "query_suffix": asked.suffix,
        "query_suffix_mask": asked.suffix_mask,
        "index": np.arange(size, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def history():
    """States and metrics of some steps on the same pairs, on one device."""
    state, steps = first_state(SINGLE), []
    for _ in range(12):
        state, metrics = step_of(CONFIG, SINGLE)(state, shard_batch(pairs(), mesh_of(SINGLE)))
        steps.append((jax.device_get(state), scalars(metrics)))
    return steps


def test_eq_3_by_hand():
    """-½ (log P(Yes | w, l) + log P(No | l, w)): other answers do not matter."""
    answers = PairAnswers(
        yes=jnp.log(jnp.array([[0.7, 0.4], [0.5, 0.1]])),
        no=jnp.log(jnp.array([[0.2, 0.5], [0.5, 0.9]])),
    )
    expected = -0.5 * np.log([0.7 * 0.5, 0.5 * 0.9])
    np.testing.assert_allclose(preference_loss(answers, jnp.ones(2)), expected, rtol=1e-6)


def test_a_label_of_one_is_eq_3_and_the_order_of_a_pair_does_not_matter():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(3 * rng.normal(size=(16, 2, 3)), jnp.float32)
    log_p = jax.nn.log_softmax(logits)
    answers, label = PairAnswers(log_p[..., 0], log_p[..., 1]), jnp.asarray(rng.uniform(size=16))
    eq_3 = -0.5 * (answers.yes[:, 0] + answers.no[:, 1])
    np.testing.assert_array_equal(preference_loss(answers, jnp.ones(16)), eq_3)
    turned = PairAnswers(answers.yes[:, ::-1], answers.no[:, ::-1])
    for one in (label, jnp.ones(16)):
        np.testing.assert_allclose(
            preference_loss(answers, one), preference_loss(turned, 1 - one), rtol=1e-6
        )


@pytest.mark.parametrize("label", [0.5, 0.8])
def test_the_gradient_leads_to_the_label_from_both_sides(label):
    """The loss of the logit z of both orders is least where P("Yes") is the label."""

    def loss(z):
        log_yes, log_no = (
            jax.nn.log_sigmoid(jnp.array([[z, -z]])),
            jax.nn.log_sigmoid(jnp.array([[-z, z]])),
        )
        return preference_loss(PairAnswers(log_yes, log_no), jnp.full(1, label))[0]

    slope = jax.grad(loss)
    best = float(jnp.log(label / (1 - label)))
    assert slope(best - 1.0) < -0.1 and slope(best + 1.0) > 0.1
    assert slope(best) == pytest.approx(0.0, abs=1e-6)


def test_smoothed_labels_by_hand():
    """-½ Σ of both answers, (1 - s / 2) of the right one and s / 2 of the wrong one."""
    answers = PairAnswers(yes=jnp.log(jnp.array([[0.7, 0.4]])), no=jnp.log(jnp.array([[0.2, 0.5]])))
    expected = -0.5 * (0.9 * np.log(0.7 * 0.5) + 0.1 * np.log(0.2 * 0.4))
    found = preference_loss(answers, smoothed_label(jnp.ones(1), 0.2))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    soft = jnp.array([0.0, 0.5, 0.8])
    np.testing.assert_allclose(smoothed_label(soft, 0.2), [0.1, 0.5, 0.74], rtol=1e-6)
    np.testing.assert_array_equal(smoothed_label(soft, 0.0), soft)


def test_measures_of_answers_that_are_known():
    """A judge that always says Yes a little: right together, half right alone, biased."""
    answers = PairAnswers(
        yes=jnp.log(jnp.array([[0.8, 0.6], [0.1, 0.4]])),
        no=jnp.log(jnp.array([[0.2, 0.4], [0.4, 0.1]])),
    )
    fill = TASKS.index(Task.FILL)
    place = DIMENSIONS[Task.FILL].index(Dimension.AESTHETICS)
    asked = {
        "label": jnp.ones(2),
        "task": jnp.array([fill, TASKS.index(Task.REMOVAL)]),
        "dimension": jnp.array([place, 0]),
    }
    found = scalars(preference_metrics(answers, asked))
    assert found["accuracy/fill/aesthetics"] == 1.0
    assert found["single_order_accuracy/fill/aesthetics"] == 0.5
    assert found["position_bias/fill/aesthetics"] == pytest.approx(0.2)
    assert found["accuracy/removal/removal_quality"] == 0.0
    assert found["position_bias/removal/removal_quality"] == pytest.approx(0.0, abs=1e-6)
    assert found["accuracy"] == 0.5
    turned = scalars(preference_metrics(answers, asked | {"label": jnp.array([0.2, 0.0])}))
    assert turned["accuracy/fill/aesthetics"] == 0.0
    assert turned["accuracy/removal/removal_quality"] == 1.0
    assert turned["position_bias"] == found["position_bias"]
    undecided = scalars(preference_metrics(answers, asked | {"label": jnp.array([0.5, 1.0])}))
    assert "accuracy/fill/aesthetics" not in undecided and undecided["accuracy"] == 0.0


def test_the_loss_is_that_of_both_orders_asked_plainly(history):
    scorer, params, batch = tiny_models.models().scorer, tiny_models.weights()[3], pairs()
    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    plain = jax.jit(scorer.score_plain)
    yes, _ = plain(params, batch["first"], batch["second"], queries)
    _, no = plain(params, batch["second"], batch["first"], queries)
    assert history[0][1]["loss"] == pytest.approx(float(-0.5 * jnp.mean(yes + no)), rel=1e-5)


def test_all_of_the_judge_learns_what_it_is_shown(history):
    """Vision tower included; and the held-out function agrees with what training reports."""
    assert history[-1][1]["accuracy"] == 1.0
    assert history[-1][1]["loss"] < 0.5 * history[0][1]["loss"]
    start = tiny_models.weights()[3]
    still = jax.tree.map(np.array_equal, start, history[0][0].params)
    moved = [not equal for equal in jax.tree.leaves(still)]
    assert sum(moved) > 0.9 * len(moved)
    answers = make_answers(tiny_models.models().scorer, CONFIG, mesh_of(SINGLE))(
        history[-2][0].params, shard_batch(pairs(), mesh_of(SINGLE))
    )
    assert float(jnp.mean(preference_loss(answers, jnp.ones(8)))) == pytest.approx(
        history[-1][1]["loss"], rel=1e-4
    )


def test_words_are_learnt_as_much_as_asked(history):
    """Their loss is reported, falls, and leaves the first loss of Eq. 3 as it was."""
    config = dataclasses.replace(CONFIG, words_weight=1.0)
    state, found = first_state(SINGLE), []
    for _ in range(4):
        state, metrics = step_of(config, SINGLE)(state, shard_batch(pairs(), mesh_of(SINGLE)))
        found.append(scalars(metrics))
    assert found[0]["loss"] == pytest.approx(history[0][1]["loss"], rel=1e-5)
    assert found[-1]["words_loss"] < 0.95 * found[0]["words_loss"]
    assert "words_loss" not in history[0][1]


def test_the_same_on_a_mesh_and_in_parts(history):
    """Jitter is drawn by step and pair, so it is the same too; and it changes the loss."""
    jittered = dataclasses.replace(CONFIG, jitter=Jitter(noise=0.3, shift=2))
    sizes, split = (1, 2, 2, 2), dataclasses.replace(jittered, microbatches=2)
    single, state = first_state(SINGLE), first_state(sizes)
    with compilations() as compiled:
        for step in range(2):
            single, expected = step_of(jittered, SINGLE)(
                single, shard_batch(pairs(), mesh_of(SINGLE))
            )
            state, metrics = step_of(split, sizes)(state, shard_batch(pairs(), mesh_of(sizes)))
            for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(single), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
            assert scalars(metrics) == pytest.approx(scalars(expected), rel=2e-4, abs=1e-5)
            assert abs(scalars(metrics)["loss"] - history[step][1]["loss"]) > 1e-5
    assert state.ema is None
    assert compiled.count("jit(step)") == 2  # each of the two once
