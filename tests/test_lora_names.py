"""One adapter in the spellings of all common trainers means the same; diffusers agrees."""

import dataclasses
import re

import numpy as np
import pytest
import test_flux
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from safetensors.numpy import save_file

from onereward_jax.convert import FLUX
from onereward_jax.convert.lora_files import read_updates
from onereward_jax.convert.lora_writer import Pair, in_bfl_names

RANK, LATENTS = 3, test_flux.SMALL["out_channels"]
BFL = {  # the original release's layers, spelt out independently of the package
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_": "time_in.",
    "time_text_embed.text_embedder.linear_": "vector_in.",
    "time_text_embed.guidance_embedder.linear_": "guidance_in.",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
BLOCK = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm.linear": "modulation.lin",
    "proj_out": "linear2",
}
FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}


def shapes_of(**values):
    with torch.device("meta"):
        model = FluxTransformer2DModel(**test_flux.SMALL | values)
    return {
        name: (part.in_features, part.out_features)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear)
    }


SMALL = shapes_of()


def bfl_layers(shapes):
    """{BFL's name: diffusers' names, whose rows it has}."""
    layers = {}
    for name in shapes:
        block = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
        if block is None:
            start = next(start for start in BFL if name.startswith(start))
            number = name.removeprefix(start)
            end = {"1": "in_layer", "2": "out_layer"}.get(number, "")
            layers[BFL[start] + end] = (name,)
            continue
        single, number, inner = block.groups()
        stack = f"{'single' if single else 'double'}_blocks.{number}"
        whole = f"{single or ''}transformer_blocks.{number}"
        if inner in BLOCK:
            layers[f"{stack}.{BLOCK[inner]}"] = (name,)
        for fused, parts in FUSED.items():
            if inner == parts[0] and (fused == "linear1") == bool(single):
                layers[f"{stack}.{fused}"] = tuple(f"{whole}.{part}" for part in parts)
    return layers


def swap(rows):
    return np.concatenate(np.split(rows, 2)[::-1])


def draw(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def reference(shapes, alphas=True, seed=0):
    """{name: (A, B, alpha)}: layers that the original release fuses have one A and alpha."""
    rng, result = np.random.default_rng(seed), {}
    for names in bfl_layers(shapes).values():
        a = draw(rng, RANK, shapes[names[0]][0])
        alpha = np.float32(rng.uniform(1, 5)) if alphas else np.float32(RANK)
        result |= {name: (a, draw(rng, shapes[name][1], RANK), alpha) for name in names}
    return {name: result[name] for name in shapes}


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How a trainer names the tensors.

    Attributes:
      prefix, parts: before and after the module; the third part is alpha.
      bfl: the original release's fused modules instead of diffusers'.
      flat: underscores for the dots of a module.
      parity: whether diffusers reads it, too.
      only: pattern of the layers that it has.
    """

    prefix: str
    parts: tuple[str, ...] = (".lora_A.weight", ".lora_B.weight")
    bfl: bool = False
    flat: bool = False
    parity: bool = False
    only: str = ".*"

    def write(self, layers, shapes):
        """{key: tensor} of {name: (A, B, alpha)}."""
        if self.bfl:
            layers = {
                bfl: fused(bfl, [layers[name] for name in names])
                for bfl, names in bfl_layers(shapes).items()
                if names[0] in layers
            }
        return {
            self.prefix + (name.replace(".", "_") if self.flat else name) + part: np.asarray(value)
            for name, values in layers.items()
            for part, value in zip(self.parts, values)
        }


def fused(bfl, layers):
    a, _, alpha = layers[0]
    b = np.concatenate([layer[1] for layer in layers])
    return a, swap(b) if "adaLN" in bfl else b, alpha


KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")
ATTENTION = r".*\.attn\..*"
SPELLINGS = {
    "diffusers": Spelling("transformer.", parity=True),
    "diffusers, alpha": Spelling(
        "transformer.", (".lora_A.weight", ".lora_B.weight", ".alpha"), parity=True
    ),
    "diffusers, first": Spelling(
        "transformer.", (".lora.down.weight", ".lora.up.weight"), parity=True, only=ATTENTION
    ),
    "diffusers, older": Spelling("unet.", ("_lora.down.weight", "_lora.up.weight")),
    "diffusers, kohya's parts": Spelling("transformer.", KOHYA),
    "transformers": Spelling(
        "transformer.", (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
    ),
    "no prefix, no weight": Spelling("", (".lora_A", ".lora_B")),
    "peft": Spelling("base_model.model."),
    "peft, wrapped": Spelling("base_model.model.transformer."),
    "peft, named": Spelling("", (".lora_A.my_name.weight", ".lora_B.my_name.weight")),
    "kohya": Spelling("lora_unet_", KOHYA, bfl=True, flat=True),
    "kohya, diffusers' modules": Spelling("lora_unet_", KOHYA, flat=True),
    "OneTrainer": Spelling("lora_transformer_", KOHYA, flat=True, parity=True, only=ATTENTION),
    "OneTrainer, all layers": Spelling("lora_transformer_", KOHYA, flat=True),
    "SimpleTuner's LyCORIS": Spelling("lycoris_", KOHYA, flat=True),
    "ComfyUI": Spelling("diffusion_model.", KOHYA, bfl=True),
    "ComfyUI, A and B": Spelling(
        "diffusion_model.", (".lora_A.weight", ".lora_B.weight", ".alpha"), bfl=True
    ),
    "ComfyUI, checkpoint": Spelling(
        "model.diffusion_model.", (".lora.down.weight", ".lora.up.weight"), bfl=True
    ),
    "ai-toolkit": Spelling("diffusion_model."),
    "BFL": Spelling("", bfl=True),
    "BFL, peft": Spelling(
        "base_model.model.", (".lora_A.default.weight", ".lora_B.default.weight"), bfl=True
    ),
}


def omi(layers):
    """OneTrainer's OMI: places within the fused layers; the norm has BFL's order."""
    names = {
        name: bfl + (f".{place}" if len(names) > 1 else "")
        for bfl, names in bfl_layers(SMALL).items()
        for place, name in enumerate(names)
    } | {"x_embedder": "img_in.proj"}
    layers = {name: fused(names[name], [layer]) for name, layer in layers.items()}
    renamed = {names[name]: layer for name, layer in layers.items()}
    return Spelling("transformer.", KOHYA).write(renamed, SMALL)


def xlabs(layers):
    """XLabs adapts the attention of the double blocks, without alpha."""
    tensors = Spelling("", (".down.weight", ".up.weight"), bfl=True).write(layers, SMALL)
    ends = {
        "img_attn.qkv": "qkv_lora1",
        "txt_attn.qkv": "qkv_lora2",
        "img_attn.proj": "proj_lora1",
        "txt_attn.proj": "proj_lora2",
    }
    for end, new in ends.items():
        tensors = {key.replace(end, f"processor.{new}"): tensors[key] for key in tensors}
    return tensors


def factors(updates):
    return {name: (one.a, one.b, one.scale) for name, one in updates.items()}


def deltas(found):
    return {name: scale * b @ a for name, (a, b, scale) in found.items()}


def applied(found):
    """As `deltas`, times a vector of ones: at the size of FLUX the products are large."""
    return {name: scale * b @ a.sum(axis=1) for name, (a, b, scale) in found.items()}


def read(tensors, path, shapes=SMALL, **metadata):
    save_file(tensors, path / "any name.safetensors", metadata=metadata)
    return read_updates(path / "any name.safetensors", shapes, FLUX)


def diffusers_factors(tensors):
    """What diffusers' pipeline makes of the tensors of the transformer."""
    state, alphas, _ = FluxFillPipeline.lora_state_dict(
        {key: torch.tensor(value) for key, value in tensors.items()},
        return_alphas=True,
        return_lora_metadata=True,
    )
    found = {}
    for key in state:
        down = re.fullmatch(r"(transformer\.)?(.+?)\.(lora_A|lora\.down)\.weight", key)
        if down:
            a = state[key].numpy()
            up = key.replace("lora_A", "lora_B").replace("lora.down", "lora.up")
            alpha = (alphas or {}).get(f"transformer.{down[2]}.alpha", len(a))
            found[down[2]] = a, state[up].numpy(), float(alpha) / len(a)
    return found


def assert_close(found, expected, atol=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=atol, err_msg=name)


def truth(layers):
    return {name: (a, b, alpha / RANK) for name, (a, b, alpha) in layers.items()}


@pytest.mark.parametrize("name", [*SPELLINGS, "OneTrainer's OMI", "XLabs"])
def test_every_spelling_means_the_same(name, tmp_path):
    spelling = SPELLINGS.get(name, Spelling("", KOHYA))
    if name == "XLabs":
        attention = r"transformer_blocks.*\.attn\..*"
        spelling = Spelling("", parity=True, only=attention)
    layers = {
        key: value
        for key, value in reference(SMALL, alphas=len(spelling.parts) == 3).items()
        if re.fullmatch(spelling.only, key)
    }
    write = {"OneTrainer's OMI": omi, "XLabs": xlabs}.get(name)
    tensors = write(layers) if write else spelling.write(layers, SMALL)
    expected = deltas(truth(layers))
    assert_close(deltas(factors(read(tensors, tmp_path))), expected)
    if spelling.parity:
        assert_close(deltas(diffusers_factors(tensors)), expected)


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_kohya_and_comfyui_equal_diffusers_at_the_width_of_flux(prefix, tmp_path):
    """diffusers' converter takes the width of FLUX.1 for granted, and ignores the norm's alpha."""
    wide = shapes_of(
        num_layers=1, num_single_layers=1, num_attention_heads=24, attention_head_dim=128,
        axes_dims_rope=(16, 56, 56),
    )  # fmt: skip
    layers = reference(wide)
    for name in ("norm_out.linear", "proj_out"):
        layers[name] = (*layers[name][:2], np.float32(RANK))
    tensors = Spelling(prefix, KOHYA, bfl=True, flat=prefix == "lora_unet_").write(layers, wide)
    found = factors(read(tensors, tmp_path, wide))
    assert_close(applied(found), applied(truth(layers)), 1e-2)
    assert_close(applied(diffusers_factors(tensors)), applied(truth(layers)), 1e-2)


@pytest.mark.parametrize("spelling", ["kohya", "comfyui"])
def test_diffusers_reads_the_files_that_we_write_for_others(spelling):
    """Layers with an A of their own become blocks on the diagonal of a fused layer."""
    wide = shapes_of(
        num_layers=1, num_single_layers=1, num_attention_heads=24, attention_head_dim=128,
        axes_dims_rope=(16, 56, 56),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    pairs = {
        name: Pair(draw(rng, 2, inputs), draw(rng, outputs, 2), 1.0)
        for name, (inputs, outputs) in wide.items()
        if not name.endswith(".to_k")
    }
    named, _ = in_bfl_names(pairs, spelling)
    tensors = {key: np.asarray(value) for key, value in named.items()}
    found = applied(diffusers_factors(tensors))
    for name, value in applied({name: tuple(pair) for name, pair in pairs.items()}).items():
        np.testing.assert_allclose(found.pop(name), value, rtol=1e-3, atol=1e-2, err_msg=name)
    assert all(name.endswith(".to_k") and not value.any() for name, value in found.items())
