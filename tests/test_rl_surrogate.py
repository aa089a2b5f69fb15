"""What of the trajectory gets gradient, what the judge sees, and the anchor to the initial weights.

"single" is tested in test_rl_step.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rl_step
import tiny_models

from onereward_jax.models.lora import Adapted, LoraConfig
from onereward_jax.training.algorithm import DYNAMIC
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.metrics import scalars
from onereward_jax.training.model_flops import rl_model_flops
from onereward_jax.training.rl_anchor import anchor_weights, velocity_anchor
from onereward_jax.training.rl_config import Frozen, RLConfig
from onereward_jax.training.rl_loss import decode_prediction, predict
from onereward_jax.training.rl_rollout import (
    draw,
    draw_index,
    embeds_of,
    policy_noise,
    roll_out,
)
from onereward_jax.training.rl_surrogate import (
    Trajectory,
    policy_steps,
    predict_clean,
    step_weights,
)

CONFIG, KEY = test_rl_step.CONFIG, test_rl_step.KEY
SIGMAS = jnp.array([1.0, 0.8, 0.5, 0.2, 0.0])
TOY = RLConfig(num_steps=4, t1=0, t2=3, active_steps=2)
STEPS = {"endpoint": (0,), "several": (0, 2), "sparse": (1, 3), "leap": (0, 2)}
"""Active steps of each surrogate on the toy's grid."""


def toy_velocity(weights, latents, sigma):
    return jnp.tanh(latents @ weights + sigma[:, None, None])


def toy_rollout(weights):
    """x_0, x_1, ... of Euler's method on `SIGMAS`."""
    points = [jax.random.normal(jax.random.key(0), (2, 3, 4))]
    for here, there in zip(SIGMAS, SIGMAS[1:], strict=False):
        velocity = toy_velocity(weights, points[-1], jnp.full(2, here))
        points.append(points[-1] + (there - here) * velocity)
    return jnp.stack(points)


def by_hand(surrogate, weights, points):
    """The surrogate of x_0 as published, with every stopped gradient written out."""
    active, stop = STEPS[surrogate], jax.lax.stop_gradient

    def velocity(latents, i):
        return toy_velocity(weights, latents, jnp.full(2, SIGMAS[i]))

    def pinned(guess, known):
        return guess + stop(known - guess)

    if surrogate == "leap":
        k, j = active
        landing = points[k] + (SIGMAS[j] - SIGMAS[k]) * velocity(points[k], k)
        joined = pinned(landing, points[j])
        seen = 0.3 * joined + 0.7 * stop(joined)
        return pinned(joined - SIGMAS[j] * velocity(seen, j), points[-1])
    if surrogate == "sparse":  # Euler's sum from the noise, rescaled to the whole window
        widths = SIGMAS[:-1] - SIGMAS[1:]
        rescale = widths.sum() / widths[jnp.array(active)].sum()
        found = points[0]
        for i in range(4):
            step = velocity(points[i], i)
            factor = rescale if i in active else 0.0
            found = found - widths[i] * (stop(step) + factor * (step - stop(step)))
        return pinned(found, points[-1])
    guesses = [points[i] - SIGMAS[i] * velocity(points[i], i) for i in active]
    return pinned(sum(guesses) / len(guesses), points[-1])


@pytest.mark.parametrize("surrogate", STEPS)
def test_the_judge_sees_the_end_and_the_gradient_is_the_published_one(surrogate):
    """From noise on (t = 0), for any judge: here a linear one."""
    config = dataclasses.replace(TOY, surrogate=surrogate)
    weights = jax.random.normal(jax.random.key(1), (4, 4))
    judge = jax.random.normal(jax.random.key(2), (2, 3, 4))
    points, active = toy_rollout(weights), jnp.array(STEPS[surrogate])

    def ours(weights):
        trajectory = Trajectory(
            points[-1], points[active], SIGMAS[active], step_weights(config, SIGMAS, active)
        )
        velocity = functools.partial(toy_velocity, weights)
        found = predict_clean(config, velocity, points[0], SIGMAS[0], trajectory)
        return jnp.sum(judge * found.clean), found

    (_, found), gradient = jax.value_and_grad(ours, has_aux=True)(weights)
    np.testing.assert_array_equal(found.clean, points[-1])
    expected = jax.grad(lambda w: jnp.sum(judge * by_hand(surrogate, w, points)))(weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    for step, velocity in zip(active, found.velocities, strict=False):
        wanted = toy_velocity(weights, points[step], jnp.full(2, SIGMAS[step]))
        np.testing.assert_allclose(velocity, wanted, rtol=1e-5)
    if surrogate == "leap":
        k, j = STEPS["leap"]
        landing = points[k] + (SIGMAS[j] - SIGMAS[k]) * found.velocities[0]
        velocity = toy_velocity(weights, points[j], jnp.full(2, SIGMAS[j]))
        ends = points[j] - SIGMAS[j] * velocity
        apart = [np.abs(a - b).mean((1, 2)) for a, b in ((landing, points[j]), (ends, points[-1]))]
        wanted = 1 / sum(np.maximum(one, 0.1) for one in apart)
        np.testing.assert_allclose(found.weight, wanted, rtol=1e-5)
    else:
        assert found.weight is None


def prediction(config, index, policy=None):
    """(value, gradient) of a linear judge of the latents, after a real rollout."""
    models, batch = tiny_models.models(), jax.device_put(tiny_models.rl_batch())
    draws = draw(models, KEY, jnp.int32(0), batch["image"])
    judge = jax.random.normal(jax.random.key(5), draws.policy_noise.shape)

    def loss(weights):
        rollout = roll_out(
            models, config, weights, weights, tiny_models.weights()[2], batch, draws, index
        )
        clean = predict(models, config, weights, batch, rollout).clean
        return jnp.sum(judge * clean), clean

    return jax.value_and_grad(loss, has_aux=True), draws, batch


def test_the_endpoint_is_the_full_rollout_with_the_gradient_of_the_single_prediction():
    models, weights = tiny_models.models(), tiny_models.weights()
    single = dataclasses.replace(CONFIG, policy_true_cfg_scale=3.0)
    endpoint = dataclasses.replace(single, surrogate="endpoint")
    ours, draws, batch = prediction(endpoint, jnp.array([1]))
    (_, finished), gradient = jax.jit(ours)(weights[0])
    (_, clean), expected = jax.jit(prediction(single, jnp.int32(1))[0])(weights[0])
    test_rl_step.assert_close(gradient, expected, 1e-3)
    assert np.abs(finished - clean).max() > 0.1
    rollout = models.editor.denoise(
        weights[0],
        draws.policy_noise,
        models.editor.encode_condition(weights[2], batch["image"], batch["mask"]),
        *embeds_of(batch),
        models.editor.sigmas(3, batch["image"].shape[1:3]),
        0,
        3,
        true_cfg_scale=3.0,
    )
    np.testing.assert_allclose(finished, rollout, atol=1e-4)


def test_several_with_one_step_is_the_endpoint():
    several = dataclasses.replace(CONFIG, surrogate="several", active_steps=1)
    endpoint = dataclasses.replace(CONFIG, surrogate="endpoint")
    programs = [
        str(jax.make_jaxpr(prediction(config, jnp.array([2]))[0])(tiny_models.weights()[0]))
        for config in (several, endpoint)
    ]
    assert programs[0] == programs[1]


def test_active_steps_are_different_and_reach_all_of_the_window():
    config = RLConfig(num_steps=12, t1=0, t2=9, active_steps=3)
    steps = jnp.arange(400)

    def drawn(surrogate):
        chosen = dataclasses.replace(config, surrogate=surrogate)
        return np.asarray(jax.vmap(lambda step: draw_index(chosen, KEY, step))(steps))

    single = drawn("single")
    np.testing.assert_array_equal(drawn("endpoint")[:, 0], single)
    for surrogate, count in (("several", 3), ("sparse", 3), ("leap", 2)):
        found = drawn(surrogate)
        assert found.shape == (400, count) and np.all(np.diff(found) > 0)
        assert set(found.ravel().tolist()) == set(range(10))
        share = np.bincount(found.ravel(), minlength=10) / found.size
        if surrogate == "sparse":
            assert share[0] < 0.03 and share[9] > 0.18
        else:
            assert np.all(np.any(found == single[:, None], axis=1))
            assert np.all(np.abs(share - 0.1) < 0.04)


def test_operations_count_what_each_surrogate_adds():
    """In forward passes of both branches: rollout, K steps with backward pass, and the anchor."""
    models, (transformer, _, vae, judge) = tiny_models.models(), tiny_models.weights()
    params, batch = (transformer, vae, judge), tiny_models.rl_batch()

    def passes(**changes):
        config = dataclasses.replace(CONFIG, flow_matching_weight=0.0, **changes)
        found = rl_model_flops(models, config, params, batch, Assumptions(policy_steps(config)))
        steps = dataclasses.replace(config, num_steps=1, t1=0, t2=0, surrogate="single")
        return found, rl_model_flops(models, steps, params, batch, Assumptions(0.0))

    single, one = passes()
    forward = (single - one) / (3 - 1 + 1)  # 3 steps instead of 1, and t = 1 on average
    for surrogate, more in (("endpoint", 2), ("several", 2 + 3), ("sparse", 2 + 3), ("leap", 5)):
        found, _ = passes(surrogate=surrogate, active_steps=2)
        assert (found - single) / forward == pytest.approx(more, rel=1e-6)
    bank, one = passes(references="bank")
    assert (bank - one) / forward == pytest.approx(1, rel=1e-6), "of the policy alone"
    anchored, _ = passes(surrogate="several", active_steps=2, anchor_weight=1.0)
    assert (anchored - single) / forward == pytest.approx(2 + 3 + 2, rel=1e-6)


ALL_OPTIONS = dataclasses.replace(
    CONFIG,
    surrogate="several",
    active_steps=2,
    shared_noise="outside",
    gradient_in_mask=True,
    anchor_weight=0.5,
)


@pytest.mark.parametrize("surrogate", ["several", pytest.param("leap", marks=pytest.mark.slow)])
def test_the_same_on_a_mesh_and_in_parts(surrogate):
    """ "endpoint" and "sparse" differ from "several" in the step's inputs only."""
    config = dataclasses.replace(ALL_OPTIONS, surrogate=surrogate)
    _, expected = test_rl_step.run(config, steps=1)
    parts = dataclasses.replace(config, microbatches=2)
    _, found = test_rl_step.run(parts, (2, 2, 2), steps=1)
    (ours, our_metrics), (single, single_metrics) = found[0], expected[0]
    test_rl_step.assert_close(ours, single, 2e-5)
    assert our_metrics == pytest.approx(single_metrics, rel=2e-4, abs=1e-5)
    assert {"anchor", "anchor/fill", "anchor/removal"} < our_metrics.keys()


def test_the_anchor_begins_at_0_and_pulls_back():
    """Alone: with λ = 0 the judge has no gradient."""
    config = dataclasses.replace(
        ALL_OPTIONS, surrogate="single", reward_upper_bound=0.0, flow_matching_weight=0.0
    )
    step, (own, other, vae, judge) = test_rl_step.step_of(config), tiny_models.weights()
    state, metrics = step(
        test_rl_step.first_state(config), Frozen(own, vae, judge), test_rl_step.batch_on(), KEY
    )
    assert scalars(metrics)["anchor"] < 1e-10
    test_rl_step.assert_close(state.params, own, 1e-6)

    state, before = test_rl_step.first_state(config), None
    for _ in range(4):
        state, metrics = step(state, Frozen(other, vae, judge), test_rl_step.batch_on(), KEY)
        distance = scalars(metrics)["anchor"]
        assert before is None or distance < before
        before, state = distance, state._replace(step=jnp.zeros_like(state.step))


def test_the_anchor_is_the_mean_squared_distance_of_velocities():
    weights, other = jax.random.normal(jax.random.key(1), (2, 4, 4))
    latents, sigmas = jax.random.normal(jax.random.key(2), (3, 2, 3, 4)), SIGMAS[:3]

    def at(weights):
        return jnp.stack(
            [toy_velocity(weights, x, jnp.full(2, s)) for x, s in zip(latents, sigmas, strict=True)]
        )

    found = velocity_anchor(functools.partial(toy_velocity, other), at(weights), latents, sigmas)
    wanted = (np.asarray(at(weights)) - np.asarray(at(other))) ** 2
    np.testing.assert_allclose(
        found, wanted.transpose(1, 0, 2, 3).reshape(2, -1).mean(1), rtol=1e-5
    )


def test_the_anchor_of_an_adapter_is_its_base_whatever_the_reference():
    lora = LoraConfig(rank=2, alpha=2.0, targets=".*")
    own, _, vae, judge = jax.device_put(tiny_models.weights())
    frozen = Frozen(None, vae, judge, base=own)
    for algorithm in (CONFIG.algorithm, DYNAMIC):
        config = dataclasses.replace(CONFIG, lora=lora, algorithm=algorithm, anchor_weight=1.0)
        found = anchor_weights(tiny_models.models(), config, frozen)
        assert not isinstance(found, Adapted)
        test_rl_step.assert_close(found, own, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"surrogate": "several", "t1": 38, "active_steps": 3},
            "'several' with 3 active steps, but t1 38 to t2 39 are 2",
        ),
        ({"surrogate": "leap", "t1": 39}, "'leap' with 2 active steps, but t1 39 to t2 39 are 1"),
        ({"leap_discount": 1.5}, "leap_discount is 1.5: expected in"),
        ({"anchor_weight": -1.0}, "anchor_weight is -1.0: expected at least 0"),
        (
            {"anchor_weight": 0.1, "algorithm": DYNAMIC},
            "anchor_weight is 0.1, but the initial weights are not in memory",
        ),
    ],
)
def test_what_cannot_be_is_said(fields, message):
    with pytest.raises(ValueError, match=message):
        RLConfig(**fields)


def test_noise_is_shared_where_the_mask_does_not_touch_a_token():
    models, batch = tiny_models.models(), jax.device_put(tiny_models.rl_batch())
    mask = np.zeros_like(batch["mask"])
    mask[:, 4:12, 5:12] = 1.0  # tokens are 4 pixels wide
    vae = jax.device_put(tiny_models.weights()[2])
    condition = models.editor.encode_condition(vae, batch["image"], jnp.asarray(mask))
    draws = draw(models, KEY, jnp.int32(0), batch["image"])
    one, two = draws.reference_noise, draws.policy_noise

    def noise(shared):
        config = dataclasses.replace(CONFIG, shared_noise=shared)
        return policy_noise(models, config, batch, draws, condition)

    np.testing.assert_array_equal(noise("none"), two)
    np.testing.assert_array_equal(noise("all"), one)
    inside = np.zeros((4, 4), bool)
    inside[1:3, 1:3] = True
    inside = inside.ravel()
    np.testing.assert_array_equal(noise("outside")[:, inside], two[:, inside])
    np.testing.assert_array_equal(noise("outside")[:, ~inside], one[:, ~inside])


def test_pixels_outside_the_mask_pass_no_gradient():
    models, batch = tiny_models.models(), jax.device_put(tiny_models.rl_batch())
    config = dataclasses.replace(CONFIG, gradient_in_mask=True)
    latents = 0.1 * jax.random.normal(jax.random.key(3), (8, 16, 16))

    @jax.jit
    def gradient(clean, chosen):
        def seen(clean):
            image = decode_prediction(models, config, tiny_models.weights()[2], batch, clean)
            return jnp.sum(image * chosen)

        return jax.grad(seen)(clean)

    assert np.all(gradient(latents, 1.0 - batch["mask"]) == 0.0)
    assert np.any(gradient(latents, batch["mask"]) != 0.0)
