"""The steps of the online methods: as written out by hand, on every mesh, and in parts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rl_step
import tiny_models

from onereward_jax.common.rng import stream
from onereward_jax.parallel import shard_batch
from onereward_jax.reward import QueryBatch
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.methods.diffusion_nft import make_nft_step
from onereward_jax.training.methods.flow_grpo import make_grpo_step
from onereward_jax.training.metrics import scalars
from onereward_jax.training.online_config import OnlineConfig, check_groups
from onereward_jax.training.train_state import shardings_of

GROUP, TRIPLETS = 2, 4
CONFIG = dataclasses.replace(
    test_rl_step.CONFIG,
    jitter=test_rl_step.Jitter(),
    flow_matching_weight=0.1,
    anchor_weight=0.3,
    held_out_every=1,
    stop_at_gap=5.0,
    online=OnlineConfig(group_size=GROUP, trained_levels=2, nft_beta=0.6),
)
KEY, SINGLE = test_rl_step.KEY, (1, 1, 1)
mesh_of, same = test_rl_step.mesh_of, test_rl_step.same


@functools.cache
def step_of(make_step, config, sizes=SINGLE):
    models = tiny_models.models()
    return make_step(dataclasses.replace(models, held_out=models.scorer), config, mesh_of(sizes))


@functools.cache
def frozen():
    weights = tiny_models.frozen()
    return weights._replace(held_out=tiny_models.lively(weights.judge, 9, 0.05))


@functools.cache
def old_weights():
    return tiny_models.lively(tiny_models.weights()[0], 9)


def first_state(config, sizes=SINGLE):
    """Its average is another transformer, so that old and new policy differ."""
    state = test_rl_step.first_state(config, sizes)
    return state._replace(ema=jax.device_put(old_weights(), shardings_of(state.ema)))


def batch_on(sizes=SINGLE, seed=0):
    return shard_batch(tiny_models.rl_batch(TRIPLETS, seed), mesh_of(sizes))


def run(make_step, config, sizes=SINGLE, steps=2):
    state, history = first_state(config, sizes), []
    for seed in range(steps):
        step = step_of(make_step, config, sizes)
        state, metrics = step(state, frozen(), batch_on(sizes, seed), KEY)
        history.append((jax.device_get(state), scalars(metrics)))
    return history


@pytest.fixture(scope="module")
def nft():
    return run(make_nft_step, CONFIG)


def guided(weights, latents, condition, batch, sigma, scale, negative_learns=True):
    velocity = functools.partial(test_rl_step._velocity, tiny_models.models().editor.transformer)
    negative = velocity(weights, latents, condition, batch, sigma, "negative_")
    positive = velocity(weights, latents, condition, batch, sigma, "")
    negative = negative if negative_learns else jax.lax.stop_gradient(negative)
    return negative + scale * (positive - negative)


def decoded(latents, batch):
    editor = tiny_models.models().editor
    images = editor.decode(tiny_models.frozen().vae, latents, batch["image"].shape[1:3])
    return jnp.clip(images, -1.0, 1.0)


def answers_of(images, others, batch, held_out=False):
    """P("Yes") and P("No")."""
    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    judge = jax.tree.map(jnp.asarray, frozen().held_out if held_out else frozen().judge)
    found = tiny_models.models().scorer.score(judge, images, others, queries)
    return [jnp.exp(answer) for answer in found]


def mean_over_task(answers, batch):
    counts = [len(DIMENSIONS[TASKS[task]]) for task in np.asarray(batch["task"])]
    return jnp.stack([jnp.mean(row[:count]) for row, count in zip(answers, counts)])


def nft_by_hand(params, batch, old):
    """The mean loss over 4 triplets x 2 samples x 2 levels, the rewards, and the mean gap to the
    held-out judge, without the step."""
    editor = tiny_models.models().editor
    velocity = functools.partial(test_rl_step._velocity, editor.transformer)
    size = batch["image"].shape[1:3]
    first, sigmas = tiny_models.weights()[1], editor.sigmas(3, size)
    condition = editor.encode_condition(tiny_models.frozen().vae, batch["image"], batch["mask"])
    keys = jax.random.split(stream(KEY, "group", 0), TRIPLETS * GROUP).reshape(TRIPLETS, GROUP)

    def sampled(weights, latents, scale):
        for now, then in zip(sigmas[:-1], sigmas[1:]):
            latents += (then - now) * guided(weights, latents, condition, batch, now, scale)
        return latents

    noise = editor.noise(stream(KEY, "reference_noise", 0), TRIPLETS, size)
    references = decoded(sampled(first, noise, 2.0), batch)
    samples, rewards, gaps = [], [], []
    for member in range(GROUP):
        noise = jnp.stack(
            [editor.noise(jax.random.split(key)[0], 1, size)[0] for key in keys[:, member]]
        )
        samples.append(sampled(old, noise, 1.5))
        compared = decoded(samples[-1], batch), references, batch
        wins, theirs = (answers_of(*compared, held_out)[0] for held_out in (False, True))
        rewards.append(mean_over_task(wins, batch))
        gaps.append((wins - theirs)[np.asarray(batch["dimension_mask"])])
    rewards = jnp.stack(rewards)
    advantage = (rewards - rewards.mean(axis=0)) / (jnp.std(rewards) + 1e-4)
    r = 0.5 + 0.5 * jnp.clip(advantage / 5.0, -1, 1)

    edited = (condition.tokens[..., -16:] > 0.5).any(axis=-1, keepdims=True)

    def mean(values):
        return jnp.sum(values * edited, axis=(1, 2)) / (edited.sum(axis=(1, 2)) * values.shape[-1])

    total = 0.0
    for member in range(GROUP):
        clean = jax.lax.stop_gradient(samples[member])
        split = [jax.random.split(jax.random.split(key)[1]) for key in keys[:, member]]
        levels = jnp.stack([jax.random.permutation(one[0], sigmas[:-1])[:2] for one in split])
        for level in range(2):
            noise = jnp.stack(
                [
                    jax.random.normal(jax.random.split(one[1], 2)[level], clean.shape[1:])
                    for one in split
                ]
            )
            sigma = levels[:, level, None, None]
            noisy = (1 - sigma) * clean + sigma * noise
            ours, before, initial = (
                guided(weights, noisy, condition, batch, levels[:, level], 3.0)
                for weights in (params, old, first)
            )
            total += 0.3 * jnp.sum(mean((ours - initial) ** 2))
            for good, sign in ((r[member], 1.0), (1 - r[member], -1.0)):
                implicit = before + sign * 0.6 * (ours - before)
                error = noisy - sigma * implicit - clean
                scale = jax.lax.stop_gradient(mean(jnp.abs(error)))
                total += jnp.sum(5.0 / 0.6 * good * mean(error**2) / scale)
    loss = total / (TRIPLETS * GROUP * 2)

    target = editor.encode_image(tiny_models.frozen().vae, batch["target"])
    sigma = jax.nn.sigmoid(jax.random.normal(stream(KEY, "matching_sigma", 0), (TRIPLETS,)))
    noise = editor.noise(stream(KEY, "matching_noise", 0), TRIPLETS, size)
    noisy = (1 - sigma[:, None, None]) * target + sigma[:, None, None] * noise
    found = velocity(params, noisy, condition, batch, sigma, "")
    matching = jnp.mean((found - (noise - target)) ** 2, axis=(1, 2))
    known = batch["has_target"]
    loss += 0.1 * jnp.sum(jnp.where(known, matching, 0.0)) / jnp.sum(known)
    return loss, (rewards, jnp.mean(jnp.concatenate(gaps)))


def test_equals_diffusion_nft_written_out_by_hand(nft):
    """Loss, rewards, gap and the whole gradient of the first step, without the step's code."""
    batch = jax.device_put(tiny_models.rl_batch(TRIPLETS))
    loss = jax.jit(
        jax.value_and_grad(functools.partial(nft_by_hand, batch=batch), has_aux=True),
        static_argnames=(),
    )
    (value, (rewards, gap)), gradient = loss(tiny_models.weights()[0], old=old_weights())
    state, metrics = nft[0]
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-4)
    spread = float(jnp.mean(jnp.std(rewards, axis=0)))
    assert spread > 1e-3 and metrics["group_spread"] == pytest.approx(spread, rel=1e-3)
    test_rl_step.assert_gradient(state, gradient)
    assert abs(gap) > 1e-3 and metrics["held_out_gap"] == pytest.approx(float(gap), rel=1e-3)
    np.testing.assert_allclose(state.gap, [gap, 1.0], rtol=1e-3)
    assert metrics["anchor"] > 0 and {"anchor/fill", "anchor/removal"} < metrics.keys()


GRPO = dataclasses.replace(
    CONFIG,
    flow_matching_weight=0.0,
    held_out_every=0,
    stop_at_gap=0.0,
    online=OnlineConfig(group_size=GROUP, trained_levels=2, grpo_noise=0.5, compare="group"),
)


METHODS = {"nft": (make_nft_step, CONFIG), "grpo": (make_grpo_step, GRPO)}


@pytest.fixture(scope="module")
def grpo():
    return run(make_grpo_step, GRPO)


def grpo_by_hand(params, batch):
    """The mean loss over 4 triplets x 2 samples x both random steps, and the rewards."""
    editor, start = tiny_models.models().editor, tiny_models.weights()[0]
    size, sigmas = batch["image"].shape[1:3], editor.sigmas(3, batch["image"].shape[1:3])
    condition = editor.encode_condition(tiny_models.frozen().vae, batch["image"], batch["mask"])
    keys = jax.random.split(stream(KEY, "group", 0), TRIPLETS * GROUP).reshape(TRIPLETS, GROUP)
    edited = (condition.tokens[..., -16:] > 0.5).any(axis=-1, keepdims=True)

    def mean(values):
        return jnp.sum(values * edited, axis=(1, 2)) / (edited.sum(axis=(1, 2)) * values.shape[-1])

    def step(weights, x, index):
        now, then = sigmas[index], sigmas[index + 1]
        v = guided(weights, x, condition, batch, now, 1.5, negative_learns=False)
        square = 0.25 * now / (1 - (sigmas[1] if index == 0 else now))
        middle = x + (square / (2 * now) * x + (1 + square * (1 - now) / (2 * now)) * v) * (
            then - now
        )
        return middle, np.sqrt(square * (now - then))

    paths, images = [], []
    for member in range(GROUP):

        def noise(index, member=member):
            drawn = [jax.random.fold_in(jax.random.split(key)[0], index) for key in keys[:, member]]
            return jnp.stack([editor.noise(key, 1, size)[0] for key in drawn])

        path = [noise(0)]
        for index in range(2):
            middle, deviation = step(start, path[-1], index)
            path.append(middle + deviation * noise(index + 1))
        last = guided(start, path[-1], condition, batch, sigmas[2], 1.5)
        images.append(decoded(path[-1] - sigmas[2] * last, batch))
        paths.append(path)
    forward = answers_of(images[0], images[1], batch)
    backward = answers_of(images[1], images[0], batch)
    wins = [(one[0] + other[1]) / 2 for one, other in ((forward, backward), (backward, forward))]
    rewards = jnp.stack([mean_over_task(one, batch) for one in wins])
    advantage = (rewards - rewards.mean(axis=0)) / (jnp.std(rewards) + 1e-4)
    total = 0.0
    for path, better in zip(paths, jax.lax.stop_gradient(advantage)):
        for index in range(2):
            x, following = jax.lax.stop_gradient((path[index], path[index + 1]))
            middle, deviation = step(params, x, index)
            initial, _ = step(tiny_models.weights()[1], x, index)
            total += 0.3 * jnp.sum(mean((middle - initial) ** 2) / (2 * deviation**2))
            log_prob = -mean((following - middle) ** 2) / (2 * deviation**2)
            total += jnp.sum(-better * jnp.exp(log_prob - jax.lax.stop_gradient(log_prob)))
    return total / (TRIPLETS * GROUP * 2), rewards


@pytest.mark.slow
def test_equals_flow_grpo_written_out_by_hand(grpo):
    """The same, compared within the group: win rates of both orders, SDE, ratios, divergence."""
    batch = jax.device_put(tiny_models.rl_batch(TRIPLETS))
    by_hand = jax.jit(
        jax.value_and_grad(functools.partial(grpo_by_hand, batch=batch), has_aux=True)
    )
    (value, rewards), gradient = by_hand(tiny_models.weights()[0])
    state, metrics = grpo[0]
    assert metrics["loss"] == pytest.approx(float(value), abs=1e-5)  # advantages add up to 0
    spread = float(jnp.mean(jnp.std(rewards, axis=0)))
    assert spread > 1e-3 and metrics["group_spread"] == pytest.approx(spread, rel=1e-3)
    assert (metrics["log_ratio"], metrics["clip_fraction"]) == (pytest.approx(0, abs=1e-6), 0.0)
    test_rl_step.assert_gradient(state, gradient)


@pytest.mark.parametrize("method", ["nft", pytest.param("grpo", marks=pytest.mark.slow)])
def test_the_same_on_every_mesh_and_in_parts(method, request):
    """Two steps in two parts on eight devices equal those on one."""
    make_step, config = METHODS[method]
    found = run(make_step, dataclasses.replace(config, microbatches=2), (2, 2, 2))
    for (ours, our_metrics), (single, single_metrics) in zip(
        found, request.getfixturevalue(method), strict=True
    ):
        test_rl_step.assert_close(ours, single, 2e-5)
        assert our_metrics == pytest.approx(single_metrics, rel=2e-4, abs=1e-5)


@pytest.mark.parametrize("method", ["nft", "grpo"])
def test_a_state_from_the_disk_goes_on_bit_for_bit(method, request):
    make_step, config = METHODS[method]
    history = request.getfixturevalue(method)
    state = jax.device_put(history[0][0], shardings_of(first_state(config)))
    step = step_of(make_step, config)
    following, _ = step(state, frozen(), batch_on(seed=1), KEY)
    assert same(following, history[1][0])


def test_groups_that_cannot_be_split_are_refused():
    mesh = mesh_of((2, 2, 2))
    with pytest.raises(ValueError, match="batch size 6 is not a multiple"):
        check_groups(6, 4, 1, mesh)
    with pytest.raises(ValueError, match="4 triplets x group_size 4: batch size 16"):
        check_groups(4, 4, 3, mesh)
    check_groups(4, 4, 4, mesh)
