"""The steps trace and lower at the real sizes, from shapes alone: no weight is ever made."""

import math

import jax
import jax.numpy as jnp
import pytest

from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import batch_sharding, make_mesh
from onereward_jax.policy import Editor, NoiseSchedule
from onereward_jax.policy.loading import abstract_params
from onereward_jax.reward import ImageProcessor, QueryLayout, Scorer
from onereward_jax.tasks import MAX_DIMENSIONS
from onereward_jax.training.reward_step import (
    RewardConfig,
    abstract_judge,
    abstract_reward_state,
    make_reward_step,
)
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_step import abstract_rl_state, make_rl_step

SIDE, BATCH = 1024, 8


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(2, 2, 2)


@pytest.fixture(scope="module")
def models():
    """FLUX.1-Fill-dev and Qwen2.5-VL-7B, computing in bfloat16."""
    flux = FluxConfig(in_channels=384, out_channels=64, guidance_embeds=True)
    schedule = NoiseSchedule(shift=3.0, use_dynamic_shifting=True)
    kinds = {"dtype": jnp.bfloat16, "remat": "full"}
    editor = Editor(FluxTransformer(flux, **kinds), AutoencoderKL(VaeConfig()), schedule)
    judge = Qwen2_5_VL(Qwen2_5_VLConfig(), param_dtype=jnp.bfloat16, **kinds)
    processor = ImageProcessor()
    tokens = processor.tokens_per_image(SIDE, SIDE)
    layout = QueryLayout(
        prefix_length=2 * tokens + 128,
        suffix_length=64,
        packed_length=4 * 64,
        image_starts=(20, 30 + tokens),
        tokens_per_image=tokens,
        pad_id=151643,
        yes_id=9454,
        no_id=2753,
    )
    return RLModels(editor, Scorer(judge, processor, layout))


def arrays(mesh, **fields):
    """Abstract batch fields from (dtype, shape without the samples)."""
    return {
        name: jax.ShapeDtypeStruct((BATCH, *shape), dtype, sharding=batch_sharding(mesh))
        for name, (dtype, shape) in fields.items()
    }


def query_fields(layout, dimensions):
    return {
        "query_prefix": (jnp.int32, (layout.prefix_length,)),
        "query_suffix": (jnp.int32, (dimensions, layout.suffix_length)),
        "query_suffix_mask": (jnp.bool_, (dimensions, layout.suffix_length)),
        "task": (jnp.int32, ()),
        "index": (jnp.int32, ()),
    }


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_rl_step_at_real_sizes(models, mesh):
    config = RLConfig(reference="ema")
    state = abstract_rl_state(models, config, mesh)
    vae = abstract_params(models.editor, mesh).vae
    frozen = Frozen(None, vae, abstract_judge(models.scorer, mesh))
    prompts = {"prompt_embeds": (jnp.bfloat16, (512, 4096))} | {
        "pooled_prompt_embeds": (jnp.bfloat16, (768,))
    }
    batch = arrays(
        mesh,
        image=(jnp.float32, (SIDE, SIDE, 3)),
        target=(jnp.float32, (SIDE, SIDE, 3)),
        mask=(jnp.float32, (SIDE, SIDE, 1)),
        dimension_mask=(jnp.bool_, (MAX_DIMENSIONS,)),
        **prompts,
        **{f"negative_{name}": field for name, field in prompts.items()},
        **query_fields(models.scorer.layout, MAX_DIMENSIONS),
    )
    lowered = make_rl_step(models, config, mesh).lower(state, frozen, batch, jax.random.key(0))
    following, _ = lowered.out_info
    assert jax.tree.map(lambda leaf: leaf.shape, following) == jax.tree.map(
        lambda leaf: leaf.shape, state
    )
    assert 11.8e9 < count(state.params) < 12.0e9
    assert 8.2e9 < count(frozen.judge) < 8.4e9


def test_reward_step_at_real_sizes(models, mesh):
    config = RewardConfig()
    state = abstract_reward_state(models.scorer, config, mesh)
    batch = arrays(
        mesh,
        winner=(jnp.float32, (SIDE, SIDE, 3)),
        loser=(jnp.float32, (SIDE, SIDE, 3)),
        dimension=(jnp.int32, ()),
        **query_fields(models.scorer.layout, 1),
    )
    lowered = make_reward_step(models.scorer, config, mesh).lower(state, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert "sharding_constraint" in lowered.as_text()
