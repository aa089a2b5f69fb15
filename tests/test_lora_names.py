"""Adapters of kohya's and XLabs' trainers mean what diffusers takes them for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_flux
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux_lora_to_diffusers,
    _convert_xlabs_flux_lora_to_diffusers,
)
from safetensors.numpy import save_file

from onereward_jax.convert import FLUX, load_adapter
from onereward_jax.convert.lora_dialects import diffusers_names
from onereward_jax.models.flux import FluxConfig

CONFIG = FluxConfig.from_dict(test_flux.SMALL)
RANK = 3


@pytest.fixture(scope="module")
def abstract():
    inputs = jax.tree.map(jnp.asarray, test_flux.make_inputs(CONFIG))
    return test_flux.abstract_params(CONFIG, inputs)


def adapter_of(layers, names, rng):
    """Random factors of {layer: (inputs, outputs)}; `names` spells A, B and the scale."""
    down, up, alpha = names
    tensors = {}
    for layer, (inputs, outputs) in layers.items():
        tensors[f"{layer}.{down}"] = rng.normal(size=(RANK, inputs)).astype(np.float32)
        tensors[f"{layer}.{up}"] = rng.normal(size=(outputs, RANK)).astype(np.float32)
        if alpha:
            tensors[f"{layer}.{alpha}"] = np.array(rng.uniform(1, 5), np.float32)
    return tensors


def kohya(width, doubles, singles):
    """{layer: (inputs, outputs)} of these blocks, and kohya's spelling."""
    mlp = 4 * width
    double = {
        "mod_lin": (width, 6 * width),
        "attn_qkv": (width, 3 * width),
        "attn_proj": (width, width),
        "mlp_0": (width, mlp),
        "mlp_2": (mlp, width),
    }
    single = {
        "modulation_lin": (width, 3 * width),
        "linear1": (width, 3 * width + mlp),
        "linear2": (width + mlp, width),
    }
    layers = {
        f"lora_unet_double_blocks_{block}_{stream}_{layer}": shape
        for block in doubles
        for stream in ("img", "txt")
        for layer, shape in double.items()
    } | {
        f"lora_unet_single_blocks_{block}_{layer}": shape
        for block in singles
        for layer, shape in single.items()
    }
    return layers, ("lora_down.weight", "lora_up.weight", "alpha")


def xlabs():
    width = CONFIG.inner_dim
    shapes = {"qkv_lora": (width, 3 * width), "proj_lora": (width, width)}
    layers = {
        f"double_blocks.{block}.processor.{layer}{stream}": shape
        for block in range(CONFIG.num_layers)
        for stream in (1, 2)
        for layer, shape in shapes.items()
    }
    # With the output layer of a single block goes its MLP, which XLabs leaves out: no proj_lora.
    layers |= {
        f"single_blocks.{block}.processor.qkv_lora": shapes["qkv_lora"]
        for block in range(CONFIG.num_single_layers)
    }
    return layers, ("down.weight", "up.weight", None)


def applied(tensors, down, up, inputs):
    """Each module's update of some inputs: scale B A x."""
    result = {}
    for key, a in tensors.items():
        if key.endswith(down):
            module = key.removesuffix(down)
            scale = float(tensors.get(f"{module}alpha", RANK)) / RANK
            x = inputs[: a.shape[1]]
            result[module.removeprefix("transformer.")] = scale * (tensors[module + up] @ (a @ x))
    return result


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for module, update in expected.items():
        np.testing.assert_allclose(found[module], update, rtol=1e-4, atol=1e-3)


def test_layers_of_kohya_are_updated_as_in_diffusers():
    """At the size of FLUX.1, which diffusers' converter takes for granted."""
    rng, width = np.random.default_rng(0), 3072
    tensors = adapter_of(*kohya(width, (0, 18), (0, 37)), rng)
    flux = FluxConfig()
    with torch.device("meta"):
        model = FluxTransformer2DModel(**test_flux.SMALL | {
            "num_attention_heads": flux.num_attention_heads,
            "attention_head_dim": flux.attention_head_dim,
            "axes_dims_rope": flux.axes_dims_rope,
            "num_layers": 19,
            "num_single_layers": 38,
        })  # fmt: skip
    shapes = {
        name: (part.in_features, part.out_features)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    ours, problems = diffusers_names(tensors, shapes)
    assert not problems
    theirs = _convert_kohya_flux_lora_to_diffusers(
        {key: torch.tensor(value) for key, value in tensors.items()}
    )
    inputs = rng.normal(size=5 * width).astype(np.float32)
    found = applied(ours, "lora_down.weight", "lora_up.weight", inputs)
    plain = {key: value.numpy() for key, value in theirs.items()}
    assert_close(found, applied(plain, "lora_A.weight", "lora_B.weight", inputs))
    assert len(found) == 2 * 14 + 2 * 6


def test_layers_of_xlabs_are_updated_as_in_diffusers():
    rng = np.random.default_rng(0)
    tensors = adapter_of(*xlabs(), rng)
    width = CONFIG.inner_dim
    shapes = {
        f"{block}.attn.{layer}": (width, width)
        for block in (f"transformer_blocks.{number}" for number in range(CONFIG.num_layers))
        for layer in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    } | {
        f"single_transformer_blocks.{block}.attn.{layer}": (width, width)
        for block in range(CONFIG.num_single_layers)
        for layer in ("to_q", "to_k", "to_v")
    }
    ours, problems = diffusers_names(tensors, shapes)
    assert not problems
    theirs = _convert_xlabs_flux_lora_to_diffusers(
        {key: torch.tensor(value) for key, value in tensors.items()}
    )
    inputs = rng.normal(size=width).astype(np.float32)
    plain = {key: value.numpy() for key, value in theirs.items()}
    assert_close(
        applied(ours, "lora_down.weight", "lora_up.weight", inputs),
        applied(plain, "lora_A.weight", "lora_B.weight", inputs),
    )


@pytest.mark.parametrize("trainer", ["kohya", "xlabs"])
def test_they_load_like_any_other(abstract, tmp_path, trainer):
    made = (
        xlabs()
        if trainer == "xlabs"
        else kohya(CONFIG.inner_dim, range(CONFIG.num_layers), range(CONFIG.num_single_layers))
    )
    tensors = adapter_of(*made, np.random.default_rng(0))
    save_file(tensors, tmp_path / "other.safetensors")
    loaded = load_adapter(tmp_path / "other.safetensors", abstract, FLUX)
    scales = np.concatenate([np.ravel(scale) for scale in jax.tree.leaves(loaded.scales)])
    told = [value / RANK for key, value in tensors.items() if key.endswith("alpha")] or [1.0]
    np.testing.assert_allclose(np.unique(scales), np.unique(told), rtol=1e-6)


def test_what_cannot_be_dealt_out_is_listed(abstract, tmp_path):
    tensors = adapter_of(*kohya(CONFIG.inner_dim, (0,), (0,)), np.random.default_rng(0))
    qkv = "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"
    tensors[qkv] = tensors[qkv][:-1]
    tensors["lora_unet_double_blocks_99_img_attn_qkv.lora_up.weight"] = tensors[qkv]
    tensors["lora_te1_text_model_encoder.lora_up.weight"] = np.zeros((2, 2), np.float32)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="odd.safetensors does not fit the model") as error:
        load_adapter(tmp_path / "odd.safetensors", abstract, FLUX)
    width = CONFIG.inner_dim
    for expected in (
        f"{qkv}: shape {(3 * width - 1, RANK)}, expected [{3 * width}, r] for transformer_blocks.0",
        "transformer_blocks.99.attn.to_q is not in the model",
        "lora_te1_text_model_encoder is not in the model",
    ):
        assert expected in str(error.value)


def test_names_of_diffusers_stay_as_they_are():
    tensors = {"transformer.proj_out.lora_A.weight": np.zeros((1, 2))}
    assert diffusers_names(tensors, {}) == (tensors, [])
