"""Converts FLUX LoRA files of other trainers to diffusers' module names.

    lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight     kohya (sd-scripts)
    double_blocks.0.processor.qkv_lora1.down.weight             XLabs (also diffusion_model.…)

Both use the module names of the original FLUX release, which fuses q, k and v into one linear layer
(in the single blocks, also the first MLP layer). For a fused layer's update B A, each diffusers
layer takes its rows of B and shares A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")

_KOHYA = {
    "double_blocks": {
        "img_attn_qkv": _QKV,
        "txt_attn_qkv": _ADDED_QKV,
        "img_attn_proj": ("attn.to_out.0",),
        "txt_attn_proj": ("attn.to_add_out",),
        "img_mlp_0": ("ff.net.0.proj",),
        "img_mlp_2": ("ff.net.2",),
        "txt_mlp_0": ("ff_context.net.0.proj",),
        "txt_mlp_2": ("ff_context.net.2",),
        "img_mod_lin": ("norm1.linear",),
        "txt_mod_lin": ("norm1_context.linear",),
    },
    "single_blocks": {
        "linear1": (*_QKV, "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation_lin": ("norm.linear",),
    },
}
_XLABS = {
    "double_blocks": {
        "qkv_lora1": _QKV,
        "qkv_lora2": _ADDED_QKV,
        "proj_lora1": ("attn.to_out.0",),
        "proj_lora2": ("attn.to_add_out",),
    },
    "single_blocks": {"qkv_lora": _QKV, "proj_lora": ("proj_out",)},
}
_BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}

_DIALECTS = (
    (
        re.compile(
            r"lora_unet_(?P<stack>double_blocks|single_blocks)_(?P<block>\d+)_(?P<layer>\w+)\."
            r"(?P<part>lora_down\.weight|lora_up\.weight|alpha)"
        ),
        _KOHYA,
    ),
    (
        re.compile(
            r"(?:diffusion_model\.)?(?P<stack>double_blocks|single_blocks)\.(?P<block>\d+)\."
            r"processor\.(?P<layer>\w+)\.(?P<part>down\.weight|up\.weight)"
        ),
        _XLABS,
    ),
)


def diffusers_names(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Renames the tensors of an adapter to diffusers' names.

    Args:
      tensors: as in the file; other names are kept.
      shapes: diffusers' module name -> (inputs, outputs).

    Returns:
      `<module>.lora_down.weight`, `.lora_up.weight`, `.alpha`, and an error message for every
      tensor that does not fit its modules.
    """
    renamed, problems = {}, []
    for key, tensor in tensors.items():
        modules, part = _parse_key(key)
        if not modules:
            renamed[key] = tensor
            continue
        if part != "lora_up.weight" or len(modules) == 1:
            renamed |= {f"{module}.{part}": tensor for module in modules}
            continue
        absent = [module for module in modules if module not in shapes]
        if absent:
            problems.append(f"{key}: in the file, but {absent[0]} is not in the model")
            continue
        rows = [shapes[module][-1] for module in modules]
        if not tensor.ndim or len(tensor) != sum(rows):
            problems.append(
                f"{key}: shape {tensor.shape}, expected [{sum(rows)}, r] for {', '.join(modules)}"
            )
            continue
        pieces = np.split(tensor, np.cumsum(rows)[:-1])
        renamed |= {f"{one}.{part}": piece for one, piece in zip(modules, pieces, strict=True)}
    return renamed, problems


def _parse_key(key: str) -> tuple[tuple[str, ...], str]:
    """The diffusers modules of a tensor, and its part; no modules if the key matches no dialect."""
    for pattern, table in _DIALECTS:
        match = pattern.fullmatch(key)
        if match and match["layer"] in table[match["stack"]]:
            block = f"{_BLOCKS[match['stack']]}.{match['block']}"
            part = match["part"].removeprefix("lora_")
            modules = table[match["stack"]][match["layer"]]
            names = tuple(f"{block}.{module}" for module in modules)
            return names, part if part == "alpha" else f"lora_{part}"
    return (), ""
