"""Methods that learn from stored pairs: supervised on winners, and masked Diffusion-DPO.

One compiled step of tiny random models (`tiny_models`) per method and mesh serves all tests. That
of dpo has a flow-matching term on the targets.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_models

import onereward_jax
from onereward_jax.chain.plugins import BUILT_IN
from onereward_jax.common.config_files import load_config
from onereward_jax.common.rng import stream
from onereward_jax.parallel import make_mesh, shard_batch
from onereward_jax.policy import PromptEmbeds
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task
from onereward_jax.train_compile.programs import make_program
from onereward_jax.training.count_jaxpr_flops import count_flops
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.methods import METHODS
from onereward_jax.training.metrics import scalars
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_step import first_rl_state
from onereward_jax.training.train_state import shardings_of

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
KEY = jax.random.key(7)
SINGLE = (1, 1, 1)
CONFIG = RLConfig(
    ema_decay=0.9,
    dpo_beta=4.0,
    dimension_weights=tuple(0.5 if one is Dimension.CONSISTENCY else 1.0 for one in Dimension),
    # A large epsilon keeps Adam from blowing rounding errors of tiny gradients up to full updates.
    optimizer=OptimizerConfig(learning_rate=0.01, eps=1e-2, clip_norm=1e6),
)
TARGETS = 0.3
"""Weight of the flow-matching term."""
LABEL = np.array([1.0, 1.0, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0], np.float32)


def models():
    """Nothing asks the judge."""
    return RLModels(tiny_models.models().editor, None, asks=False)


def pair_batch(seed=0, **changes):
    given = tiny_models.rl_batch(seed=seed)
    rng = np.random.default_rng(100 + seed)
    kept = {name: array for name, array in given.items() if not name.startswith("query")}
    shape = given["image"].shape
    return kept | {
        "winner": np.tanh(rng.normal(size=shape)).astype(np.float32),
        "loser": np.tanh(rng.normal(size=shape)).astype(np.float32),
        "label": LABEL,
        "dimension": np.zeros(len(LABEL), np.int32),  # all of weight 1
        **changes,
    }


@functools.cache
def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


def config_of(name, **changes):
    weight = TARGETS if name == "dpo" else 0.0
    changes |= {"algorithm": METHODS[name].algorithm, "flow_matching_weight": weight}
    return dataclasses.replace(CONFIG, **changes)


@functools.cache
def step_of(name, sizes=SINGLE, microbatches=1):
    config = config_of(name, microbatches=microbatches)
    return METHODS[name].make_step(models(), config, mesh_of(sizes))


def first_state(name, sizes=SINGLE):
    mesh = mesh_of(sizes)
    wanted = abstract_params(models().editor, mesh).transformer
    transformer = jax.device_put(tiny_models.weights()[0], shardings_of(wanted))
    return first_rl_state(config_of(name), transformer, mesh)


def frozen_of(name, own=False):
    """With the reference of `tiny_models`, or the policy's own first weights."""
    policy, other, vae, _ = tiny_models.weights()
    if METHODS[name].algorithm.reference == "average":
        return Frozen(None, vae, None)
    return Frozen(policy if own else other, vae, None)


def run(name, sizes=SINGLE, microbatches=1):
    """States and metrics after each of two steps, on the host."""
    state, history = first_state(name, sizes), []
    for seed in range(2):
        batch = shard_batch(pair_batch(seed), mesh_of(sizes))
        step = step_of(name, sizes, microbatches)
        state, metrics = step(state, frozen_of(name), batch, KEY)
        history.append((jax.device_get(state), scalars(metrics)))
    return history


@pytest.fixture(scope="module")
def histories():
    return {name: run(name) for name in ("winners", "dpo")}


def same(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@pytest.fixture(scope="module")
def errors_by_hand():
    """(transformer, pictures, σ) -> error of each sample inside the mask, without the step's code.

    The latents of the mask's tokens are cut out by their rows and columns.
    """
    editor, vae = models().editor, tiny_models.weights()[2]
    batch = jax.device_put(pair_batch())
    noise = np.asarray(editor.noise(stream(KEY, "matching_noise", 0), 8, (tiny_models.SIDE,) * 2))
    condition = jax.jit(editor.encode_condition)(vae, batch["image"], batch["mask"])
    encode = jax.jit(editor.encode_image)
    pixels = int(np.sqrt(editor.mask_channels))  # per side of a token
    lines = np.arange(tiny_models.SIDE // pixels) * pixels
    edited = [(y, x) for y in lines for x in lines if 4 - pixels < y < 12 and 4 - pixels < x < 12]
    inside = [y // pixels * len(lines) + x // pixels for y, x in edited]
    assert 0 < len(inside) < noise.shape[1]

    @jax.jit
    def predict(transformer, noisy, sigma):
        return editor.transformer.apply(
            {"params": transformer},
            jnp.concatenate([noisy, condition.tokens], axis=-1),
            batch["prompt_embeds"],
            batch["pooled_prompt_embeds"],
            sigma,
            condition.ids,
            jnp.zeros((tiny_models.TEXT_LENGTH, 3)),
        )

    def errors(transformer, pictures, sigma):
        clean = np.asarray(encode(vae, pictures))
        level = np.asarray(sigma)[:, None, None]
        noisy = (1 - level) * clean + level * noise
        wrong = np.asarray(predict(transformer, noisy, sigma)) - (noise - clean)
        return np.array([np.mean(one[inside] ** 2) for one in wrong])

    return errors


def test_the_loss_of_dpo_is_equation_14(histories, errors_by_hand):
    policy, reference, _, _ = tiny_models.weights()
    batch = pair_batch()
    sigma = jax.random.uniform(stream(KEY, "matching_sigma", 0), (8,))
    worse = {
        name: errors_by_hand(policy, batch[name], sigma)
        - errors_by_hand(reference, batch[name], sigma)
        for name in ("winner", "loser")
    }
    margin = -0.5 * CONFIG.dpo_beta * (worse["winner"] - worse["loser"])
    chance = 1.0 / (1.0 + np.exp(-margin))
    losses = -LABEL * np.log(chance) - (1 - LABEL) * np.log(1 - chance)
    found = histories["dpo"][0][1]
    assert np.std(margin) > 0.1
    without = found["loss"] - TARGETS * found["flow_matching_loss"]
    assert without == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["implicit_accuracy"] == pytest.approx(np.mean(margin > 0))
    assert found["winner_gain"] == pytest.approx(-np.mean(worse["winner"]), rel=1e-3)


def test_the_loss_on_winners_is_their_error_inside_the_mask(histories, errors_by_hand):
    sigma = jax.nn.sigmoid(jax.random.normal(stream(KEY, "matching_sigma", 0), (8,)))
    errors = errors_by_hand(tiny_models.weights()[0], pair_batch()["winner"], sigma)
    assert histories["winners"][0][1]["loss"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_dpo_begins_at_log_2_and_its_update_prefers_the_winner():
    """The policy is its own reference; a small step along the update, at the same noise."""
    batch, frozen = shard_batch(pair_batch(), mesh_of(SINGLE)), frozen_of("dpo", own=True)
    updated, metrics = step_of("dpo")(first_state("dpo"), frozen, batch, KEY)
    before = scalars(metrics)
    without = before["loss"] - TARGETS * before["flow_matching_loss"]
    assert without == pytest.approx(np.log(2), abs=1e-6)
    assert before["winner_gain"] == before["loser_gain"] == 0.0
    assert before["grad_norm"] > 1e-2
    start = first_state("dpo")
    moved = jax.tree.map(lambda old, new: old + 0.02 * (new - old), start.params, updated.params)
    after = scalars(step_of("dpo")(start._replace(params=moved), frozen, batch, KEY)[1])
    assert after["loss"] < before["loss"]
    assert after["winner_gain"] > after["loser_gain"]
    assert after["implicit_accuracy"] > 0.5


def test_the_targets_term_is_the_flow_matching_loss_of_triplets_that_have_one(histories):
    editor, (policy, _, vae, _) = models().editor, tiny_models.weights()
    batch = jax.device_put(pair_batch())
    known = np.asarray(batch["has_target"])
    assert 0 < known.sum() < len(known)
    noise = editor.noise(stream(KEY, "target_noise", 0), 8, (tiny_models.SIDE,) * 2)
    sigma = jax.nn.sigmoid(jax.random.normal(stream(KEY, "target_sigma", 0), (8,)))

    @jax.jit
    def by_hand():
        clean = editor.encode_image(vae, batch["target"])
        condition = editor.encode_condition(vae, batch["image"], batch["mask"])
        prompts = PromptEmbeds(batch["prompt_embeds"], batch["pooled_prompt_embeds"])
        return flow_matching_loss(editor, policy, clean, condition, prompts, sigma, noise)

    found = histories["dpo"][0][1]["flow_matching_loss"]
    assert found == pytest.approx(np.mean(np.asarray(by_hand())[known]), rel=1e-4)


def test_a_dimension_of_less_weight_teaches_less(histories):
    """The fills are about consistency, of half the weight."""
    fill = TASKS.index(Task.FILL)
    consistency = DIMENSIONS[Task.FILL].index(Dimension.CONSISTENCY)
    about = np.where(pair_batch()["task"] == fill, consistency, 0).astype(np.int32)
    batch = shard_batch(pair_batch(dimension=about), mesh_of(SINGLE))
    _, metrics = step_of("winners")(first_state("winners"), frozen_of("winners"), batch, KEY)
    found, before = scalars(metrics), histories["winners"][0][1]
    fills = np.mean(pair_batch()["task"] == fill)
    less = 0.5 * fills * found["winner_error/fill/consistency"]
    assert found["loss"] == pytest.approx(before["loss"] - less, rel=1e-4)


def test_winners_do_not_see_the_losers(histories):
    unseen = np.full_like(pair_batch()["loser"], np.nan)
    batch = shard_batch(pair_batch(loser=unseen), mesh_of(SINGLE))
    state, _ = step_of("winners")(first_state("winners"), frozen_of("winners"), batch, KEY)
    assert same(state, histories["winners"][0][0])


def test_the_same_on_a_mesh_and_in_parts(histories):
    for (ours, our_metrics), (single, metrics) in zip(run("dpo", (2, 2, 2), 2), histories["dpo"]):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(single), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        assert our_metrics == pytest.approx(metrics, rel=2e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["winners", "dpo"])
def test_a_state_from_the_disk_goes_on_bit_for_bit(name, histories):
    state = jax.device_put(histories[name][0][0], shardings_of(first_state(name)))
    batch = shard_batch(pair_batch(1), mesh_of(SINGLE))
    following, _ = step_of(name)(state, frozen_of(name), batch, KEY)
    assert same(following, histories[name][1][0])


@pytest.mark.parametrize("name", ["winners", "dpo"])
def test_only_the_policy_moves(name, histories):
    """Every layer gets gradient; the average follows."""
    state = histories[name][0][0]
    start = tiny_models.weights()[0]
    moments = optax.tree.get(state.opt_state, "mu")
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moments))
    for average, old, new in zip(*map(jax.tree.leaves, (state.ema, start, state.params))):
        np.testing.assert_allclose(average, 0.9 * old + 0.1 * new, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["winners", "dpo"])
def test_the_step_of_flux_fill_is_traced_and_its_operations_counted(name):
    """`train_compile` knows the method; remat repeats at most one of three passes."""
    config = load_config(str(ROOT / "configs" / "flux_fill_dev.py"))
    config.rl.algorithm = name
    config.models.remat = "full"
    config.rl.flow_matching_weight = TARGETS
    job = make_program(config, "rl", make_mesh(1, 4, 2))
    assert not any("query" in field for field in job.arguments[2])
    assert job.arguments[1].judge is None
    traced = job.function.trace(*job.arguments)
    flops = count_flops(traced.jaxpr.jaxpr, job.assumptions)
    assert job.model_flops <= flops <= 4 / 3 * 1.02 * job.model_flops


def test_refl_pushes_the_difference_of_rewards_up_to_its_margin():
    """A Bradley-Terry judge: P("Yes") is the sigmoid of the difference; the slope is 1 below 2."""
    difference = jnp.array([[-30.0, 0.0, 1.5, 2.5]])
    answers = jax.nn.log_sigmoid(difference), jax.nn.log_sigmoid(-difference)
    algorithm = METHODS["refl"].algorithm
    np.testing.assert_allclose(
        algorithm.loss(*answers, 0.9), np.maximum(0, 2 - difference), rtol=1e-5, atol=1e-5
    )

    def loss(d):
        return jnp.sum(algorithm.loss(jax.nn.log_sigmoid(d), jax.nn.log_sigmoid(-d), 0.9))

    np.testing.assert_allclose(jax.grad(loss)(difference), [[-1, -1, -1, 0]], atol=1e-5)


def test_the_names_of_the_methods_are_those_of_the_chain():
    assert BUILT_IN["rl.algorithm"] == tuple(METHODS)


@pytest.mark.parametrize("value", [0.0, float("inf")])
def test_settings_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=f"dpo_beta is {value!r}: expected"):
        RLConfig(dpo_beta=value)
