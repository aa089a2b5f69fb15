"""Qwen2.5-VL: parity with transformers, positions, windows, both config layouts, real size."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from parity import relative_error

from onereward_jax.convert import load_params
from onereward_jax.convert.layouts import QWEN2_5_VL
from onereward_jax.models.qwen2_5_vl import (
    Qwen2_5_VL,
    Qwen2_5_VLConfig,
    image_position_ids,
    init_params,
)

IMAGE_TOKEN = 60
TOLERANCE = 2e-4

RELEASED_7B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
"""The fields of the released Qwen2.5-VL-7B-Instruct/config.json that matter here."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A small model and the pictures it is shown."""

    tied: bool
    full_layers: tuple[int, ...]
    window_size: int
    grid: tuple[int, int, int]
    image_starts: tuple[int, ...]
    length: int
    remat: str = "none"


CASES = {
    # windows of 2x2 merged patches that hang over both edges of a 3x5 lattice
    "two_images": Case(False, (1,), 16, (1, 6, 10), (2, 19), 38),
    # tied embeddings, full attention first, windows of one column too few, recomputation
    "one_image_tied": Case(True, (0, 2), 24, (1, 4, 8), (3,), 15, remat="full"),
    # no layer attends over the whole image; the image starts the sequence
    "windows_only": Case(True, (), 8, (1, 4, 4), (0,), 8),
}


def torch_model(case: Case) -> transformers.Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 32,
            "window_size": case.window_size,
            "fullatt_block_indexes": list(case.full_layers),
            "initializer_range": 0.2,
        },
        image_token_id=IMAGE_TOKEN,
        vision_start_token_id=61,
        vision_end_token_id=62,
        video_token_id=63,
        tie_word_embeddings=case.tied,
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids [2, n], patches [2, images, patches, values])."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 60, (2, case.length), dtype=np.int32)
    patches = int(np.prod(case.grid))
    for start in case.image_starts:
        ids[:, start : start + patches // 4] = IMAGE_TOKEN
    pixels = rng.normal(size=(2, len(case.image_starts), patches, 3 * 2 * 4 * 4))
    return ids, pixels.astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients_equal_transformers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    theirs = torch_model(case)
    theirs.save_pretrained(tmp_path)
    config = Qwen2_5_VLConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    model = Qwen2_5_VL(config, remat=case.remat)
    abstract = jax.eval_shape(partial(init_params, model), jax.random.key(0))
    params = load_params(tmp_path, abstract, QWEN2_5_VL)

    ids, pixels = inputs(case)
    probe = np.random.default_rng(2).normal(size=(*ids.shape, 64)).astype(np.float32)

    @jax.jit
    def value_and_gradients(params, pixels):
        def loss(params, pixels):
            logits = model.apply(
                {"params": params}, jnp.asarray(ids), pixels, case.grid, case.image_starts
            )
            return jnp.sum(logits * probe), logits

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, pixels)

    (_, logits), (params_grad, pixels_grad) = value_and_gradients(params, jnp.asarray(pixels))

    torch_pixels = torch.tensor(pixels.reshape(-1, pixels.shape[-1]), requires_grad=True)
    torch_ids = torch.tensor(ids, dtype=torch.long)
    grids = torch.tensor([case.grid] * 2 * len(case.image_starts))
    expected = theirs(
        input_ids=torch_ids,
        pixel_values=torch_pixels,
        image_grid_thw=grids,
        mm_token_type_ids=(torch_ids == IMAGE_TOKEN).int(),
    ).logits
    (expected * torch.tensor(probe)).sum().backward()

    assert relative_error(np.asarray(logits), expected.detach().numpy()) < TOLERANCE
    ours = np.asarray(pixels_grad).reshape(torch_pixels.shape)
    assert relative_error(ours, torch_pixels.grad.numpy()) < TOLERANCE

    params_grad = nn.meta.unbox(params_grad)
    vision, language = theirs.model.visual, theirs.model.language_model
    pairs = {
        "qkv": (
            params_grad["visual"]["blocks"]["attn"]["qkv"]["kernel"][1],
            vision.blocks[1].attn.qkv.weight.grad.T,
        ),
        "merger": (
            params_grad["visual"]["merger"]["mlp_2"]["bias"],
            vision.merger.mlp[2].bias.grad,
        ),
        "k_proj": (
            params_grad["model"]["layers"]["self_attn"]["k_proj"]["kernel"][0],
            language.layers[0].self_attn.k_proj.weight.grad.T,
        ),
        "norm": (params_grad["model"]["norm"]["scale"], language.norm.weight.grad),
        "embedding": (
            params_grad["model"]["embed_tokens"]["embedding"],
            language.embed_tokens.weight.grad,
        ),
    }
    for part, (ours, gradient) in pairs.items():
        assert relative_error(np.asarray(ours), gradient.numpy()) < TOLERANCE, part


def test_positions_of_several_images_equal_transformers() -> None:
    grids = [(1, 4, 6), (1, 8, 2), (1, 2, 2)]
    ids = torch.zeros((1, 30), dtype=torch.long)
    starts = [0, 9, 14]
    for start, (_, height, width) in zip(starts, grids):
        ids[0, start : start + height * width // 4] = IMAGE_TOKEN
    theirs = torch_model(CASES["windows_only"]).model
    expected, _ = theirs.get_rope_index(
        ids, mm_token_type_ids=(ids == IMAGE_TOKEN).int(), image_grid_thw=torch.tensor(grids)
    )
    ours = image_position_ids(30, starts, grids, spatial_merge_size=2)
    np.testing.assert_array_equal(ours, expected[:, 0].numpy())
    with pytest.raises(ValueError, match="does not fit"):
        image_position_ids(30, [0, 5], grids[:2], spatial_merge_size=2)


def test_released_and_nested_config_layouts_mean_the_same(tmp_path: Path) -> None:
    released = Qwen2_5_VLConfig.from_dict(RELEASED_7B)
    assert released == Qwen2_5_VLConfig()
    # transformers reads in_channels only
    vision = {**RELEASED_7B["vision_config"], "in_channels": 3}
    transformers.Qwen2_5_VLConfig(**{**RELEASED_7B, "vision_config": vision}).save_pretrained(
        tmp_path
    )
    nested = json.loads((tmp_path / "config.json").read_text())
    assert "hidden_size" not in nested
    assert Qwen2_5_VLConfig.from_dict(nested) == released


@pytest.mark.parametrize(
    "change, named",
    [
        ({"model_type": "qwen2_vl"}, "qwen2_vl"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"type": "yarn"}}, "yarn"),
        ({"hidden_size": 4096}, "4096"),
    ],
)
def test_unsupported_config_values_are_named(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Qwen2_5_VLConfig.from_dict({**RELEASED_7B, **change})
