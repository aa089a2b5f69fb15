"""At full size: the tensors that our models want are those the originals have, name by name.

Neither side has weights: torch's models are on the meta device, ours are `jax.eval_shape`s.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import published_configs
import pytest
import torch
from diffusers import AutoencoderKL as TorchVae
from diffusers import FluxTransformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from onereward_jax.convert import CLIP, FLUX, QWEN2_5_VL, T5, VAE, Layout
from onereward_jax.convert.layouts import check_architecture
from onereward_jax.convert.tensor_names import flat_leaves, plan, published_name, unbox
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, init_params
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VLConfig as OurQwenConfig
from onereward_jax.models.t5 import T5Config as OurT5Config
from onereward_jax.models.t5 import T5Encoder
from onereward_jax.models.vae import AutoencoderKL, VaeConfig

KEY = jax.random.key(0)


def flux(config):
    model, ids = FluxTransformer(FluxConfig.from_dict(config)), jnp.zeros((1, 3))
    tokens = (jnp.zeros((1, 1, config["in_channels"])), jnp.zeros((1, 1, 4096)))
    return model.init(KEY, *tokens, jnp.zeros((1, 768)), jnp.zeros(1), ids, ids, jnp.zeros(1))


def vae(config):
    return AutoencoderKL(VaeConfig.from_dict(config)).init(KEY, jnp.zeros((1, 8, 8, 3)))


def clip(config):
    return ClipTextModel(ClipTextConfig.from_dict(config)).init(KEY, jnp.zeros((1, 2), jnp.int32))


def t5(config):
    return T5Encoder(OurT5Config.from_dict(config)).init(KEY, jnp.zeros((1, 2), jnp.int32))


def qwen(config):
    return {"params": init_params(Qwen2_5_VL(OurQwenConfig.from_dict(config)), KEY)}


def torch_qwen(config):
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))


# name -> layout, ours, the original, its parameters in millions
MODELS = {
    "FLUX_FILL": (FLUX, flux, FluxTransformer2DModel.from_config, 11902.391),
    "FLUX_VAE": (VAE, vae, TorchVae.from_config, 83.820),
    "CLIP_L": (CLIP, clip, lambda c: CLIPTextModel(CLIPTextConfig(**c)), 123.060),
    "T5_XXL": (T5, t5, lambda c: T5EncoderModel(T5Config(**c)), 4762.311),
    "QWEN_3B": (QWEN2_5_VL, qwen, torch_qwen, 3754.623),
    "QWEN_7B": (QWEN2_5_VL, qwen, torch_qwen, 8292.167),
    "QWEN_72B": (QWEN2_5_VL, qwen, torch_qwen, 73410.777),
}


def original_shapes(model: torch.nn.Module, layout: Layout) -> dict[str, tuple[int, ...]]:
    """{published name: shape} of all parameters, tied ones once."""
    named = model.named_parameters(remove_duplicate=True)
    return {published_name(name, layout): tuple(value.shape) for name, value in named}


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_are_the_originals_in_both_directions(name):
    layout, ours, original, millions = MODELS[name]
    config = getattr(published_configs, name)
    check_architecture(config, layout, name)
    abstract = jax.eval_shape(functools.partial(ours, config))["params"]
    leaves = flat_leaves(unbox(abstract))
    entries, problems = plan(leaves, layout, config)
    assert not problems
    with torch.device("meta"):
        model = original(config)
    if getattr(model, "all_tied_weights_keys", None):
        model.tie_weights()
    expected = original_shapes(model, layout)
    found = {key: entry.tensor_shape for entry in entries for key in entry.keys}
    assert found == expected
    for entry in entries:  # and what is read from those tensors fills the leaf
        assert math.prod(entry.shape) == len(entry.keys) * math.prod(entry.tensor_shape)
    count = sum(math.prod(shape) for shape in expected.values())
    assert round(count / 1e6, 3) == millions
    assert count == sum(leaf.size for leaf in leaves.values())


def test_tied_embeddings_are_one_tensor_and_untied_ones_two():
    def wanted(name):
        config = getattr(published_configs, name)
        leaves = flat_leaves(unbox(jax.eval_shape(functools.partial(qwen, config))["params"]))
        entries, _ = plan(leaves, QWEN2_5_VL, config)
        return {key for entry in entries for key in entry.keys if re.search("embed_tok|lm_h", key)}

    assert wanted("QWEN_3B") == {"model.embed_tokens.weight"}
    assert wanted("QWEN_7B") == {"model.embed_tokens.weight", "lm_head.weight"}
