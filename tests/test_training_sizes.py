"""The steps trace and lower at the real sizes, from shapes alone: no weight is ever made."""

import functools
import math
import pathlib

import jax
import pytest

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.models.flux import FluxConfig
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VLConfig
from onereward_jax.models.vae import VaeConfig
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import read_policy
from onereward_jax.reward.judge_loader import read_scorer
from onereward_jax.tasks import MAX_DIMENSIONS
from onereward_jax.train_compile.programs import PUBLISHED, make_programs
from onereward_jax.train_compile.saving import bytes_per_device, saving_of

BRANCHES = 2
"""Forwards at each noise level of the configs' true guidance: negative and positive prompt."""
CONFIGS = pathlib.Path(onereward_jax.__file__).parents[1] / "configs"


@functools.cache
def jobs(name: str, stage: str):
    config = load_config(str(CONFIGS / f"{name}.py"))
    return make_programs(config, stage, make_mesh(2, 2, 2))


def job(name: str, stage: str):
    return jobs(name, stage)[stage]


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def forward_operations():
    """Of FLUX on one sample: 2 per weight and token but for those of the vectors, and attention."""
    tokens, width, blocks = 4096 + 512, 3072, 19 + 38
    double, single = 12 * width**2, 12 * width**2
    attention = 2 * 2 * tokens * width
    return tokens * (19 * 2 * double + 38 * 2 * single + blocks * attention)


def test_the_architectures_are_those_of_the_published_models():
    editor = read_policy(PUBLISHED / "FLUX.1-Fill-dev")
    fill = FluxConfig(in_channels=384, out_channels=64, guidance_embeds=True)
    assert editor.transformer.config == fill and editor.vae.config == VaeConfig()
    assert editor.schedule.use_dynamic_shifting and editor.schedule.shift == 3.0
    scorer = read_scorer(PUBLISHED / "Qwen2.5-VL-7B-Instruct", (1024, 1024))
    assert scorer.model.config == Qwen2_5_VLConfig()
    assert scorer.layout.tokens_per_image == 37 * 37


def test_rl_step_at_real_sizes():
    rl = job("flux_fill_dev_dynamic", "rl")
    state, frozen, *_ = rl.arguments
    following, _ = rl.function.lower(*rl.arguments).out_info
    assert jax.tree.map(lambda leaf: leaf.shape, following) == jax.tree.map(
        lambda leaf: leaf.shape, state
    )
    assert 11.8e9 < count(state.params) < 12.0e9
    assert 8.2e9 < count(frozen.judge) < 8.4e9
    assert frozen.reference is None


def test_what_does_not_learn_is_held_in_half_precision():
    state, frozen, *_ = job("flux_fill_dev", "rl").arguments
    assert dtypes(state.params) == dtypes(state.ema) == {"float32"}
    assert dtypes(frozen.judge) == {"bfloat16"}
    kernels = [leaf for leaf in jax.tree.leaves(frozen.reference) if leaf.dtype != "float32"]
    assert count(kernels) > 0.99 * count(frozen.reference)


def test_the_step_of_an_adapter_at_real_sizes():
    """What learns is small, its base is held once, and gradients of the base do not count."""
    adapter, whole = job("flux_fill_dev_lora", "rl"), job("flux_fill_dev", "rl")
    state, frozen, *_ = adapter.arguments
    assert count(state.params) < 0.1 * count(frozen.base)
    assert frozen.reference is None and dtypes(frozen.base) == {"bfloat16"}
    spared = (whole.model_flops - adapter.model_flops) / whole.batch_size
    assert spared == pytest.approx(BRANCHES * forward_operations(), rel=0.02)


@pytest.mark.parametrize("name", ["flux_fill_dev", "qwen2_5_vl_7b_reward"])
def test_reward_step_at_real_sizes(name):
    reward = job(name, "reward")
    state, _ = reward.arguments
    assert dtypes(state.params) == {"float32"}
    if name == "qwen2_5_vl_7b_reward":
        assert "sharding_constraint" in reward.function.lower(*reward.arguments).as_text()


def test_the_least_operations_are_those_of_the_published_sizes():
    step = job("flux_fill_dev", "rl")
    config = load_config(str(CONFIGS / "flux_fill_dev.py")).rl
    # The reference's rollout, the policy's, and one prediction with its gradient.
    forwards = BRANCHES * (config.num_steps + (config.t1 + config.t2) / 2 + 3)
    transformer = config.batch_size * forwards * forward_operations()
    # VAE and judge are the rest
    assert transformer < step.model_flops < 1.1 * transformer


def test_stages_that_only_use_a_model_hold_it_in_half_precision():
    """A judge is asked with the weights of the stage rl."""
    (candidates,) = jobs("flux_fill_dev", "candidates").values()
    edits, judge = jobs("flux_fill_dev", "evaluate").values()
    for one in (candidates, edits):
        assert dtypes(one.arguments[0].transformer) == {"bfloat16"}
        assert 11.8e9 < count(one.arguments[0].transformer) < 12.0e9
    frozen = job("flux_fill_dev", "rl").arguments[1]
    assert judge.arguments[0] == frozen.judge
    assert judge.function.lower(*judge.arguments).out_info[0].shape == (64, MAX_DIMENSIONS)


@pytest.mark.parametrize(("stage", "layer"), [("rl", 3072 * 18432), ("reward", 152064 * 3584)])
def test_saving_takes_a_device_s_part_of_a_layer_beside_what_stays(stage, layer):
    """Moments are gone by then; what was no part of the state is still there."""
    step = job("flux_fill_dev", stage)
    state, *frozen = step.arguments
    saving = saving_of(step.written, {})
    models = (state.params, state.ema, frozen[0] if stage == "rl" else None)
    assert (
        saving.stays
        == bytes_per_device(models)
        < bytes_per_device((state, models[2])) - 7 * count(state.params) // 4
    )
    assert 0 < saving.temporary <= 4 * layer / 4
