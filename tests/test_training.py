"""What all training stages share: optimiser, update, metrics, monitors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from onereward_jax.tasks import TASKS, Task
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.ema import moving_average, relative_distance
from onereward_jax.training.metrics import Mean, add, by_task, mean_of, scalars
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.optimizer import (
    OptimizerConfig,
    decay_mask,
    make_optimizer,
    make_schedule,
)
from onereward_jax.training.reward_hacking import (
    INSIDE,
    cheating_signs,
    edge_density,
    look_inside,
    saturation,
)
from onereward_jax.training.train_state import create_state

PARAMS = {"dense": {"kernel": jnp.full((2, 3, 4), 2.0), "bias": jnp.ones((2, 4))}}


def same(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def test_the_schedule_warms_up_to_the_peak_and_falls_to_the_given_fraction():
    config = OptimizerConfig(
        learning_rate=2.0, schedule="cosine", warmup_steps=4, total_steps=12, final_fraction=0.1
    )
    rates = np.array([make_schedule(config)(step) for step in range(13)])
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    assert (np.diff(rates[4:]) < 0).all()
    np.testing.assert_allclose(rates[[8, 12]], [1.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"schedule": "cosine", "total_steps": 5, "warmup_steps": 5}, "warmup_steps is 5"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_a_wrong_optimizer_setting_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


def test_weight_decay_pulls_at_kernels_only():
    """Stacked biases have two axes: their rank would not tell them from kernels."""
    assert decay_mask(PARAMS) == {"dense": {"kernel": True, "bias": False}}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, weight_decay=0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.5 * 0.1 * 2.0)
    assert not np.any(updates["dense"]["bias"])


def test_the_gradient_is_clipped_by_its_global_norm():
    """After clipping, Adam's second moment remembers the clipped gradient."""
    optimizer = make_optimizer(OptimizerConfig(clip_norm=0.5))
    gradients = jax.tree.map(lambda leaf: 100.0 * leaf, PARAMS)
    _, state = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose(optax.tree.norm(moments) / (1 - 0.9), 0.5, rtol=1e-5)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(poison):
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1))
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    measured = {"loss": mean_of(jnp.array([1.0, jnp.nan]))}

    def update(state, loss, gradients):
        return apply_gradients(state, loss, gradients, optimizer, measured, ema_decay=0.5)

    state, _ = update(create_state(PARAMS, optimizer, with_ema=True), jnp.float32(1.0), gradients)
    if poison == "loss":
        following, metrics = update(state, jnp.float32(jnp.nan), gradients)
    else:
        gradients["dense"]["bias"] = gradients["dense"]["bias"].at[1, 2].set(jnp.inf)
        following, metrics = update(state, jnp.float32(1.0), gradients)
    assert same(following[1:4], state[1:4])
    assert (int(following.step), int(following.refused)) == (2, 1)
    assert scalars(metrics) == {"refused": 1.0}


def test_the_average_moves_by_one_minus_tau_and_stays_exactly_where_it_is_equal():
    moved = moving_average({"a": jnp.float32(1.0)}, {"a": jnp.float32(3.0)}, 0.75)
    assert moved["a"] == 1.5
    odd = {"a": jax.random.normal(jax.random.key(0), (1000,))}
    assert same(moving_average(odd, odd, 0.999), odd)


def test_relative_distance_is_that_of_the_flat_vectors():
    other = jax.tree.map(lambda leaf: 1.1 * leaf, PARAMS)
    np.testing.assert_allclose(relative_distance(other, PARAMS), 0.1, rtol=1e-5)


def test_computing_copies_convert_kernels_only():
    copy = cast_params(PARAMS, jnp.bfloat16)["dense"]
    assert (copy["kernel"].dtype, copy["bias"].dtype) == (jnp.bfloat16, jnp.float32)


def test_metrics_of_parts_add_up_to_those_of_the_whole():
    """Also where a task is in one part only, which breaks means of means."""
    fill, removal = TASKS.index(Task.FILL), TASKS.index(Task.REMOVAL)
    task = jnp.array([fill, fill, fill, removal])
    values = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.0], [0.5] * 4, [0.9, 7, 7, 7]])
    mask = jnp.array([[True] * 4] * 3 + [[True, False, False, False]])

    def measure(rows):
        return {"reward": by_task(values[rows], task[rows], mask[rows])}

    whole = scalars(measure(slice(0, 4)))
    parts = scalars(add(measure(slice(0, 1)), measure(slice(1, 4))))
    assert whole == pytest.approx(parts)
    assert whole["reward/fill/structure"] == pytest.approx(0.3)
    assert whole["reward/removal/removal_quality"] == pytest.approx(0.9)
    assert whole["reward"] == pytest.approx((3.6 + 0.9) / 13)
    assert set(whole) == {"reward", "reward/removal/removal_quality"} | {
        f"reward/fill/{name}"
        for name in ("structure", "consistency", "text_alignment", "aesthetics")
    }


def test_what_was_not_measured_has_no_value():
    assert scalars({"loss": Mean(jnp.float32(0.0), jnp.float32(0.0))}) == {}


def test_monitors_of_pictures_whose_values_are_known():
    red = jnp.broadcast_to(jnp.array([1.0, -1.0, -1.0]), (1, 6, 6, 3))
    np.testing.assert_allclose(saturation(red), 1.0)
    np.testing.assert_allclose(edge_density(red), 0.0, atol=1e-6)
    board = jnp.where((jnp.indices((6, 6)).sum(0) % 2 == 0), 1.0, -1.0)
    board = jnp.broadcast_to(board[None, :, :, None], (1, 6, 6, 3))
    np.testing.assert_allclose(saturation(board), 0.0)
    np.testing.assert_allclose(edge_density(board), 8.0, rtol=1e-6)


def test_drift_looks_outside_the_mask_only_and_ratios_compare_with_the_reference():
    key = jax.random.key(0)
    source = jax.random.uniform(key, (2, 6, 6, 3), minval=-0.5, maxval=0.5)
    mask = jnp.zeros((2, 6, 6, 1)).at[:, 2:4].set(1.0)
    image = jnp.where(mask == 1.0, -source, source + 0.25)
    signs = scalars(cheating_signs(image, source / 2, source, mask))
    assert signs["outside_drift"] == pytest.approx(0.25, rel=1e-5)
    doubled = scalars(cheating_signs(source, source / 2, source, mask))
    assert doubled["saturation"] == pytest.approx(2.0, rel=1e-5)
    assert doubled["edge_density"] == pytest.approx(2.0, rel=1e-5)
    assert doubled["outside_drift"] == 0.0


def test_what_the_edited_area_looks_like():
    """Each of four changes inside the mask raises its own measure; none outside is seen."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(-0.5, 0.3, 24)[None, :, None, None] * np.ones((2, 24, 24, 3))
    image = smooth + 0.1 * rng.normal(size=smooth.shape)
    image[..., 0] += 0.1
    mask = np.zeros((2, 24, 24, 1))
    mask[:, 4:20, 4:20] = 1.0
    inside, before = image * mask, look_inside(jnp.asarray(image), jnp.asarray(mask))
    middle = inside.sum((1, 2, 3), keepdims=True) / (3 * mask.sum((1, 2, 3), keepdims=True))
    grey = image.mean(-1, keepdims=True)
    changes = {
        "brightness": image + 0.2,
        "contrast": middle + 1.5 * (image - middle),
        "colourfulness": grey + 2.0 * (image - grey),
        "sharpness": image + 0.3 * rng.choice([-1.0, 1.0], size=(2, 24, 24, 1)),
    }
    for name, changed in changes.items():
        assert name in INSIDE
        after = look_inside(jnp.asarray(np.where(mask, changed, image)), jnp.asarray(mask))
        assert np.all(after[name] > 1.1 * before[name]), name
        elsewhere = look_inside(jnp.asarray(np.where(mask, image, 0.5)), jnp.asarray(mask))
        for other in ("brightness", "contrast", "colourfulness"):
            np.testing.assert_allclose(elsewhere[other], before[other], rtol=1e-5)
    np.testing.assert_allclose(
        before["brightness"],
        ((image @ [0.299, 0.587, 0.114] + 1) / 2 * mask[..., 0]).sum((1, 2)) / 256,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        look_inside(jnp.asarray(np.where(mask, image + 0.2, image)), jnp.asarray(mask))["contrast"],
        before["contrast"],
        rtol=1e-5,
    )
    empty = look_inside(jnp.asarray(image), jnp.zeros_like(jnp.asarray(mask)))
    assert not any(np.any(found) for found in empty.values())
