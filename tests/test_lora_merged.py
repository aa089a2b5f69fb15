"""Adapters merged as diffusers merges them: DoRA, biases, wider inputs; spellings without loss."""

import jax
import numpy as np
import peft
import pytest
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from safetensors.numpy import load_file, save_file
from test_lora import CONFIG, SECOND_BLOCKS, assert_same, read, world

from onereward_jax.convert import FLUX, load_adapter, load_params, save_adapter, save_adapter_file
from onereward_jax.convert.lora_writer import SPELLINGS
from onereward_jax.models.lora import combine
from onereward_jax.models.lora_merge import merge, merge_adapters
from onereward_jax.parallel import make_mesh

__all__ = ["world"]


@pytest.mark.parametrize("setting", ["use_dora", "lora_bias"])
def test_dora_and_biases_are_merged_as_in_diffusers(world, setting, tmp_path):
    """Also beside a plain adapter, with weights: DoRA depends on the order."""
    _, root, params, _, _ = world
    fused = FluxTransformer2DModel.from_pretrained(root / "base")
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=SECOND_BLOCKS, **{setting: True})
    fused.add_adapter(config, adapter_name="new")
    torch.manual_seed(3)
    for key, parameter in fused.named_parameters():
        if ".new." in key:
            torch.nn.init.uniform_(parameter, 0.2, 0.9)
    fused.save_lora_adapter(tmp_path / "new", adapter_name="new")
    fused.load_lora_adapter(root / "some", adapter_name="some", prefix=None, use_safetensors=True)
    fused.set_adapters(["new", "some"], [0.7, -1.5])
    fused.fuse_lora(adapter_names=["new", "some"])
    fused.unload_lora()
    fused.save_pretrained(tmp_path / "fused")
    expected = load_params(tmp_path / "fused", params, FLUX)

    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    adapters = [
        (load_adapter(tmp_path / "new", params, FLUX), 0.7),
        *zip(read(world, "some"), [-1.5]),
    ]
    sharding = jax.NamedSharding(mesh, jax.P())
    base = jax.device_put(params, sharding, may_alias=False)  # merge_adapters donates it
    found = merge_adapters(base, adapters, mesh)
    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=str(path))
    with pytest.raises(ValueError, match="can only be merged"):
        combine(adapters)
    with pytest.raises(ValueError, match="not DoRA"):
        save_adapter(tmp_path / "again", adapters[0][0], FLUX)


def test_adapters_of_flux_dev_are_widened_as_in_diffusers(world, tmp_path):
    """Its first layer has the latents only, which come first in Fill's."""
    _, root, params, _, _ = world
    latents, inputs = CONFIG.out_channels, CONFIG.in_channels
    rng = np.random.default_rng(0)
    name = "transformer.x_embedder.lora_{}.weight"
    tensors = {
        name.format("A"): rng.normal(size=(3, latents)).astype(np.float32),
        name.format("B"): rng.normal(size=(32, 3)).astype(np.float32),
    }
    save_file(tensors, tmp_path / "dev.safetensors")
    adapter = load_adapter(tmp_path / "dev.safetensors", params, FLUX)

    fresh = FluxTransformer2DModel.from_pretrained(root / "base")
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxFillPipeline(transformer=fresh, scheduler=None, **parts)
    pipeline.load_lora_weights({key: torch.tensor(value) for key, value in tensors.items()})
    pipeline.fuse_lora(components=["transformer"], lora_scale=0.125)
    expected = fresh.x_embedder.base_layer.weight.detach().numpy()
    found = merge(params, combine([(adapter, 0.125)]))["x_embedder"]["kernel"]
    np.testing.assert_allclose(found.T, expected, atol=1e-6)
    assert not np.allclose(found, params["x_embedder"]["kernel"])

    for width, words in ((16, "a control adapter"), (2 * inputs, "a Fill or control model")):
        odd = tensors | {name.format("A"): np.ones((3, width), np.float32)}
        save_file(odd, tmp_path / "odd.safetensors")
        with pytest.raises(ValueError, match=f"{width} inputs, the model {inputs} .*{words}"):
            load_adapter(tmp_path / "odd.safetensors", params, FLUX)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_are_written_without_loss(world, spelling, tmp_path):
    """Fused layers: all with an A of their own, and layers without any."""
    _, _, params, _, _ = world
    for adapter in read(world, "all", "some"):
        path = tmp_path / "new.safetensors"
        save_adapter_file(path, adapter, FLUX, spelling=spelling)
        again = load_adapter(path, params, FLUX)
        assert_same(again.factors, adapter.factors)
        jax.tree.map(np.testing.assert_array_almost_equal, again.scales, adapter.scales)
        start = {"diffusers": "transformer.", "kohya": "lora_unet_", "comfyui": "diffusion_model."}
        assert all(key.startswith(start[spelling]) for key in load_file(path))
