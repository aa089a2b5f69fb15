"""The RL step: Algorithms 1 and 2 as written, on every mesh, and refusing what is broken.

One compiled step of tiny random models (`tiny_models`) serves most tests.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_models
from compilations import compilations

from onereward_jax.common.rng import stream
from onereward_jax.parallel import make_mesh, shard_batch
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.reward import Jitter, QueryBatch, jitter_pairs
from onereward_jax.tasks import DIMENSIONS, TASKS, Task
from onereward_jax.training.algorithm import DYNAMIC
from onereward_jax.training.metrics import scalars
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.rl_rollout import draw, draw_index, roll_out
from onereward_jax.training.rl_step import first_rl_state, make_preview, make_rl_step
from onereward_jax.training.rl_weights import check_frozen, reference_distance
from onereward_jax.training.train_state import shardings_of

# A large epsilon keeps Adam from blowing rounding errors of tiny gradients up to full updates.
OPTIMIZER = OptimizerConfig(learning_rate=0.01, eps=1e-2, clip_norm=1e6)
CONFIG = RLConfig(
    reward_upper_bound=0.95,
    ema_decay=0.9,
    num_steps=3,
    t1=0,
    t2=2,
    reference_true_cfg_scale=2.0,
    policy_true_cfg_scale=1.5,
    prediction_true_cfg_scale=3.0,
    flow_matching_weight=0.1,
    jitter=Jitter(noise=0.1, shift=1, negative=0.5),
    optimizer=OPTIMIZER,
)
KEY = jax.random.key(7)
SINGLE = (1, 1, 1)


@functools.cache
def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


@functools.cache
def step_of(config, sizes=SINGLE):
    return make_rl_step(tiny_models.models(), config, mesh_of(sizes))


def first_state(config=CONFIG, sizes=SINGLE):
    mesh = mesh_of(sizes)
    wanted = abstract_params(tiny_models.models().editor, mesh).transformer
    transformer = jax.device_put(tiny_models.weights()[0], shardings_of(wanted))
    return first_rl_state(config, transformer, mesh)


def batch_on(sizes=SINGLE, seed=0, **changes):
    return shard_batch(tiny_models.rl_batch(seed=seed) | changes, mesh_of(sizes))


def run(config=CONFIG, sizes=SINGLE, steps=2):
    """States and metrics after each step, on the host; compiled once at most."""
    state, history = first_state(config, sizes), []
    with compilations() as compiled:
        for seed in range(steps):
            state, metrics = step_of(config, sizes)(
                state, tiny_models.frozen(), batch_on(sizes, seed), KEY
            )
            history.append((jax.device_get(state), scalars(metrics)))
    assert compiled.count("jit(step)") <= 1
    return state, history


@pytest.fixture(scope="module")
def history():
    """Three steps of Algorithm 1 on one device, with different t."""
    return run(steps=3)[1]


def same(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def assert_close(first, second, tolerance):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "sizes, microbatches",
    [
        ((2, 2, 2), 2),
        # Three text tokens on two devices: one is padding.
        ((1, 2, 2, 2), 1),
        # One axis after the other is in the mesh of all three.
        pytest.param((8, 1, 1), 1, marks=pytest.mark.slow),
        pytest.param((2, 4, 1), 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_same_on_every_mesh_and_in_parts(history, sizes, microbatches):
    """Two steps equal those on one device; what can be is really spread; compiled once."""
    config = dataclasses.replace(CONFIG, microbatches=microbatches)
    state, found = run(config, sizes)
    for (ours, our_metrics), (single, single_metrics) in zip(found, history, strict=False):
        assert_close(ours, single, 2e-5)
        assert our_metrics == pytest.approx(single_metrics, rel=2e-4, abs=1e-5)

    def bytes_on_one_device(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    parts = np.prod(sizes[1:])
    moments = optax.tree.get_all_with_path(state.opt_state, "mu") + optax.tree.get_all_with_path(
        state.opt_state, "nu"
    )
    for tree in (state.params, state.ema, *(value for _, value in moments)):
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        assert bytes_on_one_device(tree) < 1.3 * whole / parts


def test_one_compilation_serves_every_t(history):
    """`run` counts them."""
    assert len({metrics["prediction_index"] for _, metrics in history}) > 1


def plain_loss(params, known, batch, sigmas, index, noises):
    """Algorithm 1 written out for all samples at once: (loss, P("Yes")); `known` has a target."""
    models, frozen = tiny_models.models(), jax.device_put(tiny_models.frozen())
    editor, tasks = models.editor, np.asarray(batch["task"])
    transformer = functools.partial(_velocity, editor.transformer)
    condition = editor.encode_condition(frozen.vae, batch["image"], batch["mask"])

    def guided(weights, latents, sigma, scale):
        negative = transformer(weights, latents, condition, batch, sigma, "negative_")
        positive = transformer(weights, latents, condition, batch, sigma, "")
        return negative + scale * (positive - negative)

    reference, policy = noises["reference_noise"], noises["policy_noise"]
    for step in range(CONFIG.num_steps):
        width = sigmas[step + 1] - sigmas[step]
        reference = reference + width * guided(frozen.reference, reference, sigmas[step], 2.0)
        if step < index:
            velocity = guided(jax.lax.stop_gradient(params), policy, sigmas[step], 1.5)
            policy = policy + width * velocity
    clean = policy - sigmas[index] * guided(params, policy, sigmas[index], 3.0)
    images = [
        jnp.clip(editor.decode(frozen.vae, latents, batch["image"].shape[1:3]), -1.0, 1.0)
        for latents in (clean, reference)
    ]
    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    seen = jitter_pairs(
        noises["jitter_keys"],
        *images,
        jnp.array(["text_alignment" in DIMENSIONS[TASKS[task]] for task in tasks]),
        CONFIG.jitter,
    )
    probability = jnp.exp(models.scorer.score(frozen.judge, *seen, queries)[0])

    target = editor.encode_image(frozen.vae, batch["target"])
    sigma, noise = noises["matching_sigma"][:, None, None], noises["matching_noise"]
    noisy = (1.0 - sigma) * target + sigma * noise
    velocity = transformer(params, noisy, condition, batch, sigma[:, 0, 0], "")
    matching = jnp.mean((velocity - (noise - target)) ** 2, axis=(1, 2))
    anchor = jnp.sum(jnp.where(known, matching, 0.0)) / jnp.maximum(jnp.sum(known), 1)
    losses = jnp.full(len(tasks), 0.1 * anchor)
    for sample, task in enumerate(tasks):
        count = len(DIMENSIONS[TASKS[task]])
        hinges = [jnp.maximum(0.0, 0.95 - probability[sample, e]) for e in range(count)]
        losses = losses.at[sample].add(sum(hinges) / count)
    return jnp.mean(losses), probability


def _velocity(module, weights, latents, condition, batch, sigma, prefix):
    return module.apply(
        {"params": weights},
        jnp.concatenate([latents, condition.tokens], axis=-1),
        batch[prefix + "prompt_embeds"],
        batch[prefix + "pooled_prompt_embeds"],
        jnp.broadcast_to(sigma, latents.shape[:1]),
        condition.ids,
        jnp.zeros((tiny_models.TEXT_LENGTH, 3)),
    )


@pytest.fixture(scope="module")
def by_hand(history):
    """Which samples have a target -> ((loss, P("Yes")), gradient) of the first step."""
    models, batch = tiny_models.models(), jax.device_put(tiny_models.rl_batch())
    sigmas = models.editor.sigmas(CONFIG.num_steps, batch["image"].shape[1:3])
    noises = {
        name: models.editor.noise(stream(KEY, name, 0), 8, (tiny_models.SIDE,) * 2)
        for name in ("reference_noise", "policy_noise", "matching_noise")
    }
    noises["matching_sigma"] = jax.nn.sigmoid(
        jax.random.normal(stream(KEY, "matching_sigma", 0), (8,))
    )
    noises["jitter_keys"] = jax.random.split(stream(KEY, "jitter", 0), 8)
    index = int(history[0][1]["prediction_index"])
    loss = functools.partial(plain_loss, batch=batch, sigmas=sigmas, index=index, noises=noises)
    return functools.partial(
        jax.jit(jax.value_and_grad(loss, has_aux=True)), tiny_models.weights()[0]
    )


def assert_gradient(state, gradient):
    """Adam's first moment after one step is (1 - b1) times the gradient."""
    moment = optax.tree.get(state.opt_state, "mu")
    found = jax.tree.map(lambda leaf: leaf / (1.0 - OPTIMIZER.b1), moment)
    assert float(optax.tree.norm(gradient)) > 1e-2
    error = optax.tree.norm(jax.tree.map(jnp.subtract, found, gradient))
    assert float(error / optax.tree.norm(gradient)) < 1e-4


def test_equals_algorithm_1_written_out_by_hand(history, by_hand):
    """Loss, rewards and the whole gradient of the first step, without any of the step's code."""
    (state, metrics), batch = history[0], tiny_models.rl_batch()
    (value, probability), gradient = by_hand(batch["has_target"])
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    removal = batch["task"] == TASKS.index(Task.REMOVAL)
    assert metrics["reward/removal/removal_quality"] == pytest.approx(
        float(np.mean(probability[removal, 0])), rel=1e-5
    )
    assert_gradient(state, gradient)


def test_the_average_follows_and_the_frozen_weights_stay(history):
    start = tiny_models.weights()[0]
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, start, history[0][0].params)
    assert_close(history[0][0].ema, expected, 1e-6)
    frozen = jax.device_put(tiny_models.frozen())
    before = jax.device_get(frozen)
    step_of(CONFIG)(first_state(), frozen, batch_on(), KEY)
    assert same(before, frozen)


def test_the_reference_of_algorithm_2_is_the_average(history):
    """An average equal to Algorithm 1's reference gives Algorithm 1's step."""
    config = dataclasses.replace(CONFIG, algorithm=DYNAMIC)
    _, other, vae, judge = tiny_models.weights()
    state = first_state()
    state = state._replace(ema=jax.device_put(other, shardings_of(state.ema)))
    frozen = tiny_models.frozen(reference=False)
    following, metrics = step_of(config)(state, frozen, batch_on(), KEY)
    assert_close(following.params, history[0][0].params, 1e-6)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, other, following.params)
    assert_close(following.ema, expected, 1e-6)
    assert scalars(metrics)["reference_distance"] > 0.1


def test_a_reference_too_many_or_too_few_is_refused():
    dynamic = dataclasses.replace(CONFIG, algorithm=DYNAMIC)
    with pytest.raises(ValueError, match="there is no frozen.reference"):
        check_frozen(CONFIG, tiny_models.frozen(reference=False))
    with pytest.raises(ValueError, match="there is a frozen.reference"):
        check_frozen(dynamic, tiny_models.frozen())


def test_a_bank_with_the_rollouts_references_gives_the_same_step(history):
    """On another mesh and in parts; the reference's transformer is not in memory."""
    preview = make_preview(tiny_models.models(), CONFIG, mesh_of(SINGLE))
    _, images = preview(first_state(), tiny_models.frozen(), batch_on(), KEY)
    config = dataclasses.replace(CONFIG, references="bank", microbatches=2)
    sizes = (2, 2, 2)
    batch = batch_on(sizes, reference=np.asarray(images), reference_seed=np.arange(8))
    frozen = tiny_models.frozen(reference=False)
    state, metrics = step_of(config, sizes)(first_state(config, sizes), frozen, batch, KEY)
    assert_close(state, history[0][0], 2e-5)
    expected = dict(history[0][1])
    del expected["reference_distance"]
    assert scalars(metrics) == pytest.approx(expected, rel=2e-4, abs=1e-5)
    with pytest.raises(ValueError, match="from a bank, but there is a frozen.reference"):
        check_frozen(config, tiny_models.frozen())


def test_above_the_upper_bound_nothing_is_learned():
    """λ below every P("Yes"): the policy stays as it is, bit for bit."""
    config = dataclasses.replace(CONFIG, reward_upper_bound=0.0, flow_matching_weight=0.0)
    state, metrics = step_of(config)(first_state(), tiny_models.frozen(), batch_on(), KEY)
    assert same(state.params, tiny_models.weights()[0])
    found = scalars(metrics)
    assert (found["zero_gradient"], found["grad_norm"], found["refused"]) == (1.0, 0.0, 0.0)
    assert 0.0 < found["reward"] < 1.0


def test_what_stands_in_for_a_missing_target_is_never_read(history):
    target = tiny_models.rl_batch()["target"]
    target[~tiny_models.rl_batch()["has_target"]] = np.nan
    following, _ = step_of(CONFIG)(
        first_state(), tiny_models.frozen(), batch_on(target=target), KEY
    )
    assert same(following, history[0][0])


def test_a_batch_without_targets_has_no_flow_matching_loss(history, by_hand):
    """Its loss and gradient are those of the rewards alone."""
    none = np.zeros(8, np.bool_)
    state, metrics = step_of(CONFIG)(
        first_state(), tiny_models.frozen(), batch_on(has_target=none), KEY
    )
    (value, _), gradient = by_hand(none)
    found = scalars(metrics)
    assert found["loss"] == pytest.approx(float(value), rel=1e-5)
    assert found["loss"] < history[0][1]["loss"] and found["reward"] == history[0][1]["reward"]
    assert "flow_matching_loss" not in found and found["refused"] == 0.0
    assert_gradient(state, gradient)


def test_the_distance_to_a_rounded_reference_begins_at_0():
    state = first_state()
    rounded = cast_params(state.params, jnp.bfloat16)
    frozen = tiny_models.frozen()._replace(reference=rounded)
    assert float(reference_distance(CONFIG, state, frozen)) == 0.0
    moved = state._replace(params=jax.tree.map(lambda leaf: 1.1 * leaf, state.params))
    assert float(reference_distance(CONFIG, moved, frozen)) == pytest.approx(0.1, rel=0.02)


def test_a_broken_batch_changes_nothing_but_the_counters(history):
    image = tiny_models.rl_batch()["image"]
    image[3, 5, 5, 1] = np.nan
    state = jax.device_put(history[0][0], shardings_of(first_state()))
    following, metrics = step_of(CONFIG)(state, tiny_models.frozen(), batch_on(image=image), KEY)
    assert same(following[1:4], history[0][0][1:4])
    assert (int(following.step), int(following.refused)) == (2, 1)
    assert scalars(metrics) == {"refused": 1.0}


def test_a_state_from_the_disk_goes_on_bit_for_bit(history):
    """No key or counter lives outside the state: what was saved is all there is."""
    state = jax.device_put(history[0][0], shardings_of(first_state()))
    following, _ = step_of(CONFIG)(state, tiny_models.frozen(), batch_on(seed=1), KEY)
    assert same(following, history[1][0])


def test_the_rollout_carries_no_gradient():
    models, frozen = tiny_models.models(), tiny_models.frozen()
    batch = jax.device_put(tiny_models.rl_batch())
    draws = draw(models, KEY, jnp.int32(0), batch["image"])

    def outcome(weights):
        policy, reference, vae = weights
        rollout = roll_out(models, CONFIG, policy, reference, vae, batch, draws, jnp.int32(2))
        return jnp.sum(rollout.latents) + jnp.sum(rollout.reference_image)

    gradients = jax.jit(jax.grad(outcome))((tiny_models.weights()[0], *frozen[:2]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_draws_depend_on_run_and_step_only_and_reach_both_ends():
    models, images = tiny_models.models(), jnp.asarray(tiny_models.rl_batch()["image"])

    def drawn(step):
        found = draw(models, KEY, jnp.int32(step), images)
        return found._replace(jitter_keys=jax.random.key_data(found.jitter_keys))

    first = drawn(0)
    assert same(first, drawn(0))
    assert not np.array_equal(first.reference_noise, first.policy_noise)
    following = drawn(1)
    assert not np.array_equal(first.jitter_keys, following.jitter_keys)
    assert not np.array_equal(first.policy_noise, following.policy_noise)
    indices = jax.vmap(lambda step: draw_index(CONFIG, KEY, step))(jnp.arange(64))
    assert set(np.asarray(indices).tolist()) == {0, 1, 2}
