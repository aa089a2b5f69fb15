"""RL of an adapter: its base stays, the base is the reference, and the step is the full one's."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_rl_step
import tiny_models
from compilations import compilations
from flax.traverse_util import flatten_dict

from onereward_jax.common.config_files import load_config
from onereward_jax.convert import FLUX, is_adapter, load_params, save_adapter, save_params
from onereward_jax.models.lora import (
    FACTOR_A,
    FACTOR_B,
    LoraConfig,
    combine,
    product,
    uniform_adapter,
)
from onereward_jax.models.lora_merge import merge
from onereward_jax.policy.lora_adapters import (
    abstract_editor_adapter,
    init_editor_adapter,
    load_trained,
)
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.algorithm import DYNAMIC
from onereward_jax.training.metrics import scalars
from onereward_jax.training.rl_config import Frozen
from onereward_jax.training.rl_step import first_rl_state, make_rl_step
from onereward_jax.training.rl_weights import check_frozen
from onereward_jax.training.train_state import shardings_of

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
TARGETS = load_config(str(CONFIGS / "mini.py")).rl.lora.targets
EVERYTHING = LoraConfig(rank=3, alpha=6.0, targets=".*")
CONFIG = dataclasses.replace(test_rl_step.CONFIG, lora=EVERYTHING)
KEY, SINGLE, EIGHT = test_rl_step.KEY, (1, 1, 1), (2, 2, 2)
mesh_of, batch_on = test_rl_step.mesh_of, test_rl_step.batch_on
EDITOR = tiny_models.models().editor


@functools.cache
def step_of(config, sizes=SINGLE):
    return make_rl_step(tiny_models.models(), config, mesh_of(sizes))


def frozen_on(sizes=SINGLE):
    """One transformer, on the mesh."""
    base, _, vae, judge = tiny_models.weights()
    shardings = shardings_of(abstract_params(EDITOR, mesh_of(sizes)).transformer)
    return Frozen(None, vae, judge, base=jax.device_put(base, shardings))


def first_state(config=CONFIG, sizes=SINGLE):
    adapter = init_editor_adapter(EDITOR, config.lora, jax.random.key(3), mesh_of(sizes))
    return first_rl_state(config, adapter, mesh_of(sizes))


def run(config, sizes=SINGLE, steps=2):
    """Frozen weights, and states and metrics each step, on the host. Compiled once at most."""
    state, frozen, history = first_state(config, sizes), frozen_on(sizes), []
    with compilations() as compiled:
        for seed in range(steps):
            state, metrics = step_of(config, sizes)(state, frozen, batch_on(sizes, seed), KEY)
            history.append((jax.device_get(state), scalars(metrics)))
    assert compiled.count("jit(step)") <= 1
    return frozen, history


@pytest.fixture(scope="module")
def algorithm_1():
    return run(CONFIG)


def test_the_first_step_is_that_of_full_training_seen_through_the_factors(algorithm_1):
    """∂/∂B = s Aᵀ ∂/∂W and ∂/∂A = 0 at B = 0, with the base as reference; W from the full step."""
    base, _, vae, judge = tiny_models.weights()
    full = test_rl_step.first_state()
    full, expected = test_rl_step.step_of(test_rl_step.CONFIG)(
        full, Frozen(base, vae, judge), batch_on(), KEY
    )
    state, metrics = algorithm_1[1][0]
    for name in ("loss", "reward", "flow_matching_loss", "outside_drift"):
        assert metrics[name] == pytest.approx(scalars(expected)[name], rel=1e-5), name
    assert metrics["reference_distance"] == 0.0

    start = flatten_dict(jax.device_get(first_state().params))
    kernels = flatten_dict(jax.device_get(optax.tree.get(full.opt_state, "mu")))
    found = flatten_dict(optax.tree.get(state.opt_state, "mu"))
    assert len(found) == 2 * sum(path[-1] == "kernel" for path in kernels)
    largest = max(np.abs(leaf).max() for leaf in found.values())
    for (*module, name), moment in found.items():
        if name == FACTOR_A:
            assert not moment.any()
            continue
        a, kernel = start[*module, FACTOR_A], kernels[*module, "kernel"]
        wanted = CONFIG.lora.scale * np.swapaxes(a, -1, -2) @ kernel
        np.testing.assert_allclose(moment, wanted, rtol=1e-3, atol=1e-5 * largest)


def test_only_the_adapter_moves_and_no_second_transformer_is_held(algorithm_1):
    frozen, history = algorithm_1
    assert test_rl_step.same(frozen.base, tiny_models.weights()[0])
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    state = history[-1][0]
    moments = [optax.tree.get(state.opt_state, name) for name in ("mu", "nu")]
    shapes = abstract_editor_adapter(EDITOR, CONFIG.lora, mesh_of(SINGLE))
    for tree in (state.params, state.ema, *moments):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, shapes)
    _, _, vae, judge = tiny_models.weights()
    assert size(frozen) == size((tiny_models.weights()[0], vae, judge))
    start = jax.device_get(first_state().params)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), state.params, start)
    assert all(jax.tree.leaves(moved))

    # ‖s A B‖ / ‖base‖ of the state that the second step began with
    flat = flatten_dict(jax.tree.map(jnp.asarray, history[0][0].params))
    modules = [path[:-1] for path in flat if path[-1] == FACTOR_B]
    squares = sum(np.sum(np.square(product(flat, module))) for module in modules)
    expected = CONFIG.lora.scale * np.sqrt(squares) / optax.tree.norm(tiny_models.weights()[0])
    assert history[1][1]["reference_distance"] == pytest.approx(float(expected), rel=1e-4)


def test_algorithm_2_on_a_mesh_of_eight_in_parts(algorithm_1):
    """Its reference is the average: where that is at B = 0, the steps are those of Algorithm 1."""
    (first, first_metrics), (second, second_metrics) = algorithm_1[1]
    config = dataclasses.replace(CONFIG, algorithm=DYNAMIC, microbatches=2)
    (_, ((found, metrics),)) = run(config, EIGHT, steps=1)
    test_rl_step.assert_close(found, first, 2e-5)
    assert metrics == pytest.approx(first_metrics, rel=2e-4, abs=1e-5)

    fresh = jax.device_get(first_state().params)

    def second_step(average):
        wanted = shardings_of(first_state(config, EIGHT))
        state = jax.device_put(first._replace(ema=average), wanted)
        with compilations() as compiled:
            state, metrics = step_of(config, EIGHT)(
                state, frozen_on(EIGHT), batch_on(EIGHT, seed=1), KEY
            )
        assert "jit(step)" not in compiled
        return jax.device_get(state), scalars(metrics)

    found, metrics = second_step(fresh)
    test_rl_step.assert_close(found._replace(ema=second.ema), second, 2e-5)
    assert metrics == pytest.approx(second_metrics, rel=2e-4, abs=1e-5)
    average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, fresh, found.params)
    test_rl_step.assert_close(found.ema, average, 1e-6)
    _, metrics = second_step(first.ema)
    assert metrics["reference_distance"] < 0.95 * second_metrics["reference_distance"]


def test_a_transformer_too_many_or_too_few_is_refused():
    base, other, vae, judge = tiny_models.weights()
    with pytest.raises(ValueError, match="with an adapter, but there is no frozen.base"):
        check_frozen(CONFIG, Frozen(None, vae, judge))
    with pytest.raises(ValueError, match="with an adapter, but there is a frozen.reference"):
        check_frozen(CONFIG, Frozen(other, vae, judge, base=base))
    with pytest.raises(ValueError, match="without an adapter, but there is a frozen.base"):
        check_frozen(test_rl_step.CONFIG, Frozen(other, vae, judge, base=base))


def test_a_trained_adapter_is_merged_into_its_base_when_it_is_loaded(algorithm_1, tmp_path):
    base, mesh = tiny_models.weights()[0], mesh_of(EIGHT)
    architecture = dataclasses.asdict(EDITOR.transformer.config)
    save_params(tmp_path / "editor" / "transformer", base, FLUX, config=architecture)
    adapter = uniform_adapter(algorithm_1[1][-1][0].params, CONFIG.lora.scale)
    save_adapter(tmp_path / "policy", adapter, FLUX)
    assert is_adapter(tmp_path / "policy") and not is_adapter(tmp_path / "editor/transformer")
    transformer = tmp_path / "editor" / "transformer"
    found = load_trained(tmp_path / "policy", transformer, EDITOR, mesh)
    test_rl_step.assert_close(found, merge(base, combine([(adapter, 1.0)])), 1e-6)
    wanted = abstract_params(EDITOR, mesh).transformer
    assert shardings_of(found) == shardings_of(wanted)
    whole = load_trained(transformer, transformer, EDITOR, mesh)
    assert test_rl_step.same(whole, load_params(transformer, wanted, FLUX))


@pytest.mark.parametrize("fields, name", [({"rank": -1}, "rank"), ({"alpha": 0.0}, "alpha")])
def test_a_wrong_setting_is_named(fields, name):
    with pytest.raises(ValueError, match=f"^{name} is {fields[name]}"):
        LoraConfig(**{"rank": 4, "alpha": 4.0, "targets": TARGETS} | fields)


def test_the_configs_adapt_attention_and_mlps_of_all_blocks():
    adapter = abstract_editor_adapter(EDITOR, LoraConfig(4, 4.0, TARGETS), mesh_of(SINGLE))
    modules = {".".join(path[:-1]) for path in flatten_dict(adapter)}
    double = {"to_q", "to_k", "to_v", "to_out_0", "add_q_proj", "add_k_proj", "add_v_proj"}
    double = {f"attn.{name}" for name in double | {"to_add_out"}}
    double |= {f"{ff}.{layer}" for ff in ("ff", "ff_context") for layer in ("net_0.proj", "net_2")}
    single = {"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out"}
    expected = {f"transformer_blocks.{name}" for name in double}
    assert modules == expected | {f"single_transformer_blocks.{name}" for name in single}
