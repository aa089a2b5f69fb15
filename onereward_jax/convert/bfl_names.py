"""Names of FLUX layers in the original release by Black Forest Labs (BFL), which ComfyUI uses too.

The original release has fewer, fused linear layers: `qkv` is to_q, to_k and to_v one below the
other, `linear1` of a single-stream block is to_q, to_k, to_v and proj_mlp. The weights are the
same except for `final_layer.adaLN_modulation.1`: its first half of rows is the shift and its second
half the scale, diffusers' `norm_out.linear` has the scale first.

Source: black-forest-labs/flux, `src/flux/model.py`, and diffusers' FluxTransformer2DModel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DOUBLE, SINGLE = "double_blocks", "single_blocks"
BLOCKS = {DOUBLE: "transformer_blocks", SINGLE: "single_transformer_blocks"}
"""Lists of blocks: BFL's name -> diffusers'."""

MODULES: Mapping[str, tuple[str, ...]] = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
"""Layers outside the blocks: BFL's name -> diffusers'."""

BLOCK_MODULES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DOUBLE: {
        "img_mod.lin": ("norm1.linear",),
        "txt_mod.lin": ("norm1_context.linear",),
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "img_attn.norm.query_norm": ("attn.norm_q",),
        "img_attn.norm.key_norm": ("attn.norm_k",),
        "txt_attn.norm.query_norm": ("attn.norm_added_q",),
        "txt_attn.norm.key_norm": ("attn.norm_added_k",),
        "img_attn.proj": ("attn.to_out.0",),
        "txt_attn.proj": ("attn.to_add_out",),
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
    },
    SINGLE: {
        "modulation.lin": ("norm.linear",),
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": ("proj_out",),
        "norm.query_norm": ("attn.norm_q",),
        "norm.key_norm": ("attn.norm_k",),
    },
}
"""Layers of a block: BFL's name -> diffusers' names; several: parts of the fused rows, in order."""

SWAPPED = "final_layer.adaLN_modulation.1"
"""The layer whose two halves of rows change places."""


def diffusers_modules(module: str) -> tuple[str, ...]:
    """diffusers' modules of a BFL module, e.g. `double_blocks.3.img_attn.qkv`; () if unknown.

    Several: the BFL module's rows are theirs, one below the other in this order.
    """
    found = re.fullmatch(rf"({DOUBLE}|{SINGLE})\.(\d+)\.(.+)", module)
    if found is None:
        return MODULES.get(module, ())
    names = BLOCK_MODULES[found[1]].get(found[3], ())
    return tuple(f"{BLOCKS[found[1]]}.{found[2]}.{name}" for name in names)


def bfl_module(module: str) -> tuple[str, int] | None:
    """The BFL module that holds a diffusers module, and its place there; None if unknown."""
    found = re.fullmatch(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)", module)
    if found is None:
        return _OUTSIDE.get(module)
    block, number, name = found.groups()
    inside = _INSIDE.get((block, name))
    return inside and (f"{inside[0]}.{number}.{inside[1]}", inside[2])


_OUTSIDE = {names[0]: (bfl, 0) for bfl, names in MODULES.items()}
_INSIDE = {
    (BLOCKS[block], name): (block, bfl, place)
    for block, modules in BLOCK_MODULES.items()
    for bfl, names in modules.items()
    for place, name in enumerate(names)
}
