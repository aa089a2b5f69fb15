"""The cosines of gradients equal those of gradients taken one by one, also in microbatches."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rl_step
import tiny_models

from onereward_jax.stages.evaluate.report_contents import read_conflicts
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.rl_conflicts import conflict_scalars, conflict_titles, make_conflicts
from onereward_jax.training.rl_loss import judge_pairs, predict_image
from onereward_jax.training.rl_rollout import draw, draw_index, roll_out

CONFIG = dataclasses.replace(test_rl_step.CONFIG, reward_upper_bound=1.0, microbatches=2)


def cosine(first, second):
    first, second = np.ravel(first), np.ravel(second)
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


@pytest.fixture(scope="module")
def measured():
    mesh = test_rl_step.mesh_of(test_rl_step.SINGLE)
    function = make_conflicts(tiny_models.models(), CONFIG, mesh)
    state, batch = test_rl_step.first_state(CONFIG), test_rl_step.batch_on()
    return conflict_scalars(function(state, tiny_models.frozen(), batch, test_rl_step.KEY))


@pytest.fixture(scope="module")
def by_hand():
    """Gradients of every dimension [e, b, h, w, 3], and flat ones of every task [t, x]."""
    models, batch = tiny_models.models(), jax.device_put(tiny_models.rl_batch())
    frozen, params = jax.device_put(tiny_models.frozen()), tiny_models.weights()[0]

    @jax.jit
    def gradients(params):
        draws = draw(models, test_rl_step.KEY, jnp.int32(0), batch["image"])
        index = draw_index(CONFIG, test_rl_step.KEY, jnp.int32(0))
        rollout = roll_out(
            models, CONFIG, params, frozen.reference, frozen.vae, batch, draws, index
        )

        def image_of(params):
            return predict_image(models, CONFIG, params, frozen.vae, batch, rollout)

        def losses(image):
            answers, _ = judge_pairs(models, CONFIG, frozen.judge, image, batch, draws, rollout)
            return 1.0 - jnp.exp(answers[0])

        def by_task(params):
            kept = jnp.where(batch["dimension_mask"], losses(image_of(params)), 0.0)
            means = kept.sum(axis=1) / batch["dimension_mask"].sum(axis=1)
            return jax.ops.segment_sum(means, batch["task"], len(TASKS))

        image = image_of(params)
        at_image = jacobian(lambda image: losses(image).sum(axis=0), image)
        return jnp.where(jnp.abs(image) < 1.0, at_image, 0.0), jacobian(by_task, params)

    at_image, at_weights = jax.device_get(gradients(params))
    return at_image, np.concatenate([flat(leaf) for leaf in jax.tree.leaves(at_weights)], axis=1)


def jacobian(function, inputs):
    """Row by row: `jax.jacrev` batches the judge over cotangents, which gives other values."""
    outputs, pull_back = jax.vjp(function, inputs)
    return jax.lax.map(lambda row: pull_back(row)[0], jnp.eye(len(outputs)))


def flat(leaf):
    return leaf.reshape(len(TASKS), -1).astype(np.float64)


def test_cosines_are_those_of_gradients_taken_one_by_one(measured, by_hand):
    at_image, at_weights = by_hand
    expected = {}
    for row, task in enumerate(TASKS):
        samples = np.flatnonzero(tiny_models.rl_batch()["task"] == row)
        for (one, first), (two, second) in itertools.combinations(enumerate(DIMENSIONS[task]), 2):
            found = [cosine(at_image[one, n], at_image[two, n]) for n in samples]
            expected[f"cosine_of_dimensions/{task.value}/{first.value}/{second.value}"] = np.mean(
                found
            )
    for (one, first), (two, second) in itertools.combinations(enumerate(TASKS), 2):
        name = f"cosine_of_tasks/{first.value}/{second.value}"
        expected[name] = cosine(at_weights[one], at_weights[two])
    assert measured.keys() == expected.keys() == conflict_titles().keys()
    assert measured == pytest.approx(expected, rel=2e-3, abs=2e-4)
    assert min(expected.values()) < 0.9


def test_the_report_reads_what_the_stage_writes(measured, tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "loss": 0.5}, {"step": 2} | measured, {"step": 3, "loss": 0.4}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_conflicts(path)
    assert list(found) == [task.title for task in TASKS if len(DIMENSIONS[task]) > 1] + ["tasks"]
    curve = found["tasks"]["image fill, object removal"]
    assert curve.steps.tolist() == [2]
    assert curve.values[0] == measured["cosine_of_tasks/fill/removal"]
