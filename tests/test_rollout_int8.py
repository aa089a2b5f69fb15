"""Rollouts in int8: close to full ones, on every mesh, and nothing else of the step is in int8."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rl_lora
import test_rl_step
import tiny_models
from flax.traverse_util import flatten_dict
from ml_collections import FrozenConfigDict

from onereward_jax.common.config_files import load_config
from onereward_jax.convert import FLUX, load_params
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.models.int8 import Quantized, quantize
from onereward_jax.models.lora import Adapted, scale_factors
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import read_policy
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.stages.rl_settings import check_rollout_int8
from onereward_jax.train_compile.programs import make_program
from onereward_jax.training.algorithm import DYNAMIC
from onereward_jax.training.count_jaxpr_flops import count_flops
from onereward_jax.training.metrics import scalars
from onereward_jax.training.rl_config import RLModels
from onereward_jax.training.rl_rollout import draw, roll_out
from onereward_jax.training.rl_weights import check_frozen
from onereward_jax.training.rollout_int8 import abstract_int8, first_int8, make_round_weights

CONFIG = dataclasses.replace(test_rl_step.CONFIG, rollout_int8=True)
FOLDER = PACKAGE / "mini" / "models" / "editor"
MINI = str(pathlib.Path(__file__).parents[1] / "configs" / "mini.py")
SINGLE, EIGHT, KEY = test_rl_step.SINGLE, (2, 2, 2), test_rl_step.KEY


@functools.cache
def frozen(sizes=SINGLE):
    """No full reference, but one in int8."""
    mesh = test_rl_step.mesh_of(sizes)
    int8 = first_int8(tiny_models.models(), CONFIG, tiny_models.weights()[1], mesh)
    return tiny_models.frozen(reference=False)._replace(int8=int8)


def run(config, frozen, sizes=SINGLE):
    """State and metrics of a step, on the host."""
    step = test_rl_step.step_of(config, sizes)
    state = test_rl_step.first_state(config, sizes)
    state, metrics = step(state, frozen, test_rl_step.batch_on(sizes), KEY)
    return jax.device_get(state), scalars(metrics)


@pytest.fixture(scope="module")
def single():
    return run(CONFIG, frozen())


def change(state):
    """What the step did to the weights, as one vector."""
    start = tiny_models.weights()[0]
    parts = jax.tree.map(lambda new, old: np.ravel(new - old), state.params, start)
    return np.concatenate(jax.tree.leaves(parts))


def apart(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_a_step_is_close_to_a_full_one(single):
    """The judge's answers and the update, not the bits; the reference has no distance then."""
    state, metrics = single
    full_state, full = run(test_rl_step.CONFIG, tiny_models.frozen())
    assert metrics["reward"] == pytest.approx(full["reward"], abs=0.02)
    assert 0 < apart(change(state), change(full_state)) < 0.2
    assert set(full) - set(metrics) == {"reference_distance"}


def test_it_is_the_same_on_a_mesh_and_in_microbatches(single):
    """Sums of int8 products are exact everywhere; values at a rounding edge may fall either way."""
    config = dataclasses.replace(CONFIG, microbatches=2)
    state, metrics = run(config, frozen(EIGHT), EIGHT)
    assert metrics["reward"] == pytest.approx(single[1]["reward"], abs=2e-3)
    assert apart(change(state), change(single[0])) < 0.05


def test_the_prediction_and_its_gradient_are_in_full_precision():
    """A step whose policy takes no step without gradient, beside pictures of a bank."""
    nothing = dict(references="bank", t1=0, t2=0)
    batch = tiny_models.rl_batch()
    bank = test_rl_step.batch_on(reference=batch["target"], reference_seed=np.arange(8))
    found = []
    for config in (test_rl_step.CONFIG, CONFIG):
        config = dataclasses.replace(config, **nothing)
        step = test_rl_step.step_of(config)
        weights = tiny_models.frozen(reference=False)
        state, metrics = step(test_rl_step.first_state(config), weights, bank, KEY)
        found.append((jax.device_get(state), scalars(metrics)))
    test_rl_step.assert_close(found[0][0], found[1][0], 1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_the_rollouts_and_nothing_else_multiply_int8():
    """As counted for the estimates; all other operations are those of the full step."""
    totals = {}
    for int8 in (False, True):
        config = load_config(MINI)
        config.rl.rollout_int8 = int8
        job = make_program(config, "rl", make_mesh(1, 1, 1, devices=jax.devices()[:1]))
        jaxpr = job.function.trace(*job.arguments).jaxpr.jaxpr
        totals[int8] = count_flops(jaxpr, job.assumptions)
        only = dataclasses.replace(job.assumptions, only_int8=True)
        assert count_flops(jaxpr, only) == pytest.approx(job.int8_flops)
    assert totals[True] == pytest.approx(totals[False])
    assert 0 < job.int8_flops < job.model_flops


def test_with_an_adapter_both_rollouts_share_the_integers():
    """The side path stays: weights are base and adapter, and the base alone."""
    models, config = (
        tiny_models.models(),
        dataclasses.replace(test_rl_lora.CONFIG, rollout_int8=True),
    )
    mesh = test_rl_step.mesh_of(SINGLE)
    base, _, vae, judge = tiny_models.weights()
    state = test_rl_lora.first_state(config)
    state = state._replace(params=tiny_models.lively(state.params, 9, 0.1))
    kept = test_rl_lora.frozen_on()._replace(int8=first_int8(models, config, base, mesh))
    check_frozen(config, kept)
    policy, reference = make_round_weights(models, config, mesh)(state, kept)
    assert reference is kept.int8 and policy.params is kept.int8
    batch = jax.device_put(tiny_models.rl_batch(4))
    draws = draw(models, KEY, jnp.int32(0), batch["image"])

    @jax.jit
    def pictures(weights, first):
        rolled = roll_out(models, config, weights, first, vae, batch, draws, jnp.int32(2))
        return rolled.latents, rolled.reference_image

    full = pictures(Adapted(base, scale_factors(state.params, config.lora.scale)), base)
    found = pictures(policy, reference)
    for ours, wanted in zip(found, full, strict=True):
        assert 0 < apart(ours, wanted) < 0.05
    assert apart(pictures(reference, reference)[0], full[0]) > 0.1


def test_a_run_that_goes_on_gets_the_integers_it_began_with():
    """From the weights of the policy, or of the folder; sharded as the kernels."""
    mesh, editor = make_mesh(*EIGHT), read_policy(FOLDER, dtype=jnp.bfloat16)
    models = RLModels(editor, tiny_models.models().scorer)
    params = load_params(FOLDER / "transformer", abstract_params(editor, mesh).transformer, FLUX)
    first, again = (first_int8(models, CONFIG, params, mesh) for _ in range(2))
    plan = abstract_int8(models, CONFIG, mesh)
    for one, other, wanted in zip(*map(jax.tree.leaves, (first, again, plan)), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    flat, sharding = flatten_dict(first.params, sep="/"), flatten_dict(params, sep="/")
    name = "single_transformer_blocks/proj_out/kernel"
    assert flat[name].dtype == jnp.int8 and flat[name].sharding == sharding[name].sharding
    for kept in ("x_embedder", "proj_out", "norm_out/linear"):
        assert flat[f"{kept}/kernel"].dtype == jnp.bfloat16
    jax.tree.map(lambda leaf: leaf.delete(), params)
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(first))


def test_the_average_as_reference_is_rounded_in_the_step():
    config = dataclasses.replace(CONFIG, algorithm=DYNAMIC)
    weights = tiny_models.frozen(reference=False)
    check_frozen(config, weights)
    state = test_rl_step.first_state()
    state = state._replace(ema=jax.tree.map(lambda leaf: 2 * leaf, state.params))
    round_weights = make_round_weights(tiny_models.models(), config, test_rl_step.mesh_of(SINGLE))
    policy, reference = jax.jit(round_weights)(state, weights)
    assert isinstance(policy, Quantized) and isinstance(reference, Quantized)
    for one, two in zip(jax.tree.leaves(policy.scales), jax.tree.leaves(reference.scales)):
        np.testing.assert_allclose(2 * one, two, rtol=1e-6)


def test_what_does_not_fit_together_is_refused():
    config = load_config(MINI)
    config.rl.update(rollout_int8=True, algorithm="nft")
    with pytest.raises(ValueError, match=r"config\.rl\.rollout_int8 is True, but the method .*nft"):
        check_rollout_int8(FrozenConfigDict(config))
    config.rl.algorithm = "refl"
    check_rollout_int8(FrozenConfigDict(config))
    with pytest.raises(ValueError, match="with rollouts in int8, but there is no frozen.int8"):
        check_frozen(CONFIG, tiny_models.frozen(reference=False))
    with pytest.raises(ValueError, match="in int8, but there is a frozen.reference"):
        check_frozen(CONFIG, frozen()._replace(reference=tiny_models.weights()[1]))
    anchored = dataclasses.replace(CONFIG, anchor_weight=1.0)
    check_frozen(anchored, frozen()._replace(reference=tiny_models.weights()[1]))
    assert quantize({"a": {"kernel": np.ones((2, 2))}}, "b").scales == {}
