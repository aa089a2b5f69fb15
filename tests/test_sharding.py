"""How weights lie on the mesh at the published sizes, and that no step puts a model together."""

import dataclasses
import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
import tiny_models
from ml_collections import FrozenConfigDict

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import read_policy
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.reward.judge_loader import abstract_reward_params, read_scorer
from onereward_jax.stages.rl_settings import rl_settings
from onereward_jax.train_compile.hlo import collective_traffic
from onereward_jax.train_compile.programs import PUBLISHED
from onereward_jax.training.reward_step import (
    RewardConfig,
    abstract_reward_state,
    make_reward_step,
)
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_step import abstract_rl_state, make_rl_step
from onereward_jax.training.rl_weights import abstract_reference

CONFIGS = pathlib.Path(onereward_jax.__file__).parents[1] / "configs"
LARGE = 2**24
"""Numbers in a tensor from which it has to be spread over all of the mesh."""

MIDDLING = 2**20
"""And over the devices of fsdp."""

LAYERS = 5
"""Of every stack of the tiny models: no other side of a tensor of theirs is as long."""


@functools.cache
def mesh():
    return make_mesh(1, 4, 2)


@functools.cache
def full_size() -> RLModels:
    judge = read_scorer(
        PUBLISHED / "Qwen2.5-VL-7B-Instruct", (1024, 1024), param_dtype=jnp.bfloat16
    )
    return RLModels(read_policy(PUBLISHED / "FLUX.1-Fill-dev", dtype=jnp.bfloat16), judge)


def too_whole(tree, large=8, middling=4):
    """{path: (shape, numbers on one device)} of what is not spread over so many devices."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        size, held = math.prod(leaf.shape), math.prod(leaf.sharding.shard_shape(leaf.shape))
        parts = large if size >= LARGE else middling if size >= MIDDLING else 1
        if held * parts > size:
            found[jax.tree_util.keystr(path)] = (leaf.shape, held)
    return found


@pytest.mark.parametrize("name", ["flux_fill_dev", "flux_fill_dev_dynamic", "flux_fill_dev_lora"])
def test_every_large_tensor_of_a_run_is_spread(name):
    """Weights, moments, average, reference and base; none is whole on any device."""
    settings = rl_settings(FrozenConfigDict(load_config(str(CONFIGS / f"{name}.py"))))
    state = abstract_rl_state(full_size(), settings, mesh())
    # A factor of an adapter has one side of the kernel, and is spread over one axis of the mesh.
    assert not too_whole(state, *((2, 2) if settings.lora else ()))
    assert not too_whole(abstract_reference(full_size(), settings, mesh()))
    largest = max(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))
    assert largest > (MIDDLING if settings.lora else LARGE)


def test_every_large_tensor_that_does_not_learn_is_spread():
    params = abstract_params(full_size().editor, mesh())
    assert not too_whole(params)
    assert not too_whole(abstract_reward_params(full_size().scorer, mesh()))
    assert not too_whole(abstract_reward_state(full_size().scorer, RewardConfig(), mesh()))


def deep_models() -> RLModels:
    """The tiny models with stacks of `LAYERS` layers."""
    editor, scorer = tiny_models.models().editor, tiny_models.models().scorer
    flux = dataclasses.replace(
        editor.transformer.config, num_layers=LAYERS, num_single_layers=LAYERS
    )
    transformer = editor.transformer.clone(config=flux, remat="full")
    judge = scorer.model.config
    text = dataclasses.replace(judge.text_config, num_hidden_layers=LAYERS)
    vision = dataclasses.replace(judge.vision_config, depth=LAYERS)
    model = scorer.model.clone(
        config=dataclasses.replace(judge, text_config=text, vision_config=vision)
    )
    return RLModels(
        dataclasses.replace(editor, transformer=transformer),
        dataclasses.replace(scorer, model=model),
    )


def assert_gathers_layer_by_layer(text: str) -> None:
    """Weights are gathered, but no collective brings forth a whole stack of kernels."""
    results = re.findall(r"= \(?(\w+)\[([\d,]+)\]\S* all-gather(?:-start)?\(", text)
    sides = [tuple(map(int, shape.split(","))) for _, shape in results]
    assert sides and "all-gather" in collective_traffic(text, 1.0)
    assert not [shape for shape in sides if len(shape) >= 3 and shape[0] == LAYERS]


def test_the_rl_step_never_puts_a_model_together():
    models, spread = deep_models(), make_mesh(2, 2, 2)
    config = RLConfig(num_steps=2, t1=0, t2=1)
    params = abstract_params(models.editor, spread)
    frozen = Frozen(
        abstract_reference(models, config, spread),
        params.vae,
        abstract_reward_params(models.scorer, spread),
    )
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tiny_models.rl_batch(seed=0)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = abstract_rl_state(models, config, spread)
    lowered = make_rl_step(models, config, spread).lower(state, frozen, batch, key)
    assert_gathers_layer_by_layer(lowered.compile().as_text())


def test_the_reward_step_never_puts_the_judge_together():
    scorer, spread = deep_models().scorer, make_mesh(2, 2, 2)
    rl = tiny_models.rl_batch(seed=0)
    pairs = {
        "first": rl["image"],
        "second": rl["target"],
        "label": rl["image"][:, 0, 0, 0],
        "task": rl["task"],
        "dimension": rl["task"],
        "query_prefix": rl["query_prefix"],
        "query_suffix": rl["query_suffix"][:, :1],
        "query_suffix_mask": rl["query_suffix_mask"][:, :1],
    }
    pairs = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, pairs))
    state = abstract_reward_state(scorer, RewardConfig(), spread)
    lowered = make_reward_step(scorer, RewardConfig(), spread).lower(state, pairs)
    assert_gathers_layer_by_layer(lowered.compile().as_text())
