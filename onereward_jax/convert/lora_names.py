"""Which linear layers the tensors of a LoRA file are for, in the spellings of all common trainers.

    transformer.transformer_blocks.0.attn.to_q.lora_A.weight        diffusers, ai-toolkit
    base_model.model.transformer_blocks.0.attn.to_q.lora_A.default.weight            peft
    lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight            kohya (sd-scripts)
    lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight           OneTrainer
    transformer.double_blocks.0.img_attn.qkv.0.lora_down.weight          OneTrainer's OMI
    diffusion_model.double_blocks.0.img_attn.qkv.lora_up.weight              ComfyUI, BFL
    double_blocks.0.processor.qkv_lora1.down.weight                                 XLabs

A key is a prefix, a module and a part. Modules are compared with dots as underscores, so that every
prefix and every part goes with every name of a module. BFL's names are of fused layers
(`bfl_names`): for a fused layer's update B A, each of its layers takes its rows of B and shares A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from onereward_jax.convert.bfl_names import (
    BLOCKS,
    DOUBLE,
    SINGLE,
    SWAPPED,
    bfl_module,
    diffusers_modules,
)
from onereward_jax.convert.layouts import FLUX, Layout
from onereward_jax.convert.tensor_names import published_name, torch_name

DOWN, UP, MID, ALPHA = "down", "up", "mid", "alpha"
BIAS, MAGNITUDE = "bias", "magnitude"
"""Parts of an adapted layer: A, B, LoCon's matrix between them, alpha, the bias of B, DoRA's m."""

_FACTOR = {"A": DOWN, "B": UP, "down": DOWN, "up": UP, "mid": MID}
_PARTS = (
    # lora_A.weight, lora_B.default.weight, lora_down.weight, lora_B.bias, lora_A
    r"[._]lora_(?P<factor>A|B|down|up|mid)(\.(?P<name>(?!(weight|bias)$)[^.]+))?"
    r"(\.(weight|(?P<bias>bias)))?",
    # lora.down.weight, to_q_lora.up.weight, lora_linear_layer.down.weight, qkv_lora1.down.weight
    r"[._]lora(_linear_layer)?(?P<stream>\d?)\.(?P<factor>down|up)(\.weight)?",
    r"\.(?P<magnitude>lora_magnitude_vector|dora_scale)(\.(?P<name>(?!weight$)[^.]+))?(\.weight)?",
    r"(\.lora_(A|B|down|up))?\.(?P<alpha>(lora_)?alpha)",
)
_KEYS = tuple(re.compile(rf"(?P<module>.+?){part}") for part in _PARTS)
_PREFIX = re.compile(
    r"(_orig_mod|base_model|model|module|transformer|diffusion_model|unet|dit|net"
    r"|lora_unet|lora_transformer|lora_prior_unet|lycoris|lora)[._]"
)
_TEXT_ENCODER = re.compile(
    r"(_orig_mod\.|base_model\.model\.)*"
    r"(lora_(prior_)?te\d?_|lora_text_encoder|lycoris_te|text_encoders?[._\d]|te\d?\.|clip_[lg]\.|t5(xxl)?\."
    r"|text_model\.|bundle_emb\.)"
)
_T5 = re.compile(r"t5|SelfAttention|DenseReluDense|EncDecAttention|encoder_block|encoder\.block")


class Key(NamedTuple):
    """A tensor's name in parts.

    Attributes:
      module: the module as the file spells it, with its prefix.
      part: one of `DOWN`, `UP`, `MID`, `ALPHA`, `BIAS`, `MAGNITUDE`.
      adapter: peft's name of the adapter, if the key has it; else "".
    """

    module: str
    part: str
    adapter: str


class Modules(NamedTuple):
    """The layers of the model that a module of a file stands for.

    Attributes:
      names: published names; several share A, and have their rows of B in this order.
      swapped: the halves of the rows of B change places (see `bfl_names`).
      foreign: the name is not diffusers' own, but the original release's or XLabs'.
    """

    names: tuple[str, ...]
    swapped: bool = False
    foreign: bool = False


def parse_key(key: str) -> Key | None:
    """The parts of a tensor's name; None if it is no part of a LoRA or DoRA."""
    for pattern in _KEYS:
        found = pattern.fullmatch(key)
        if found is None:
            continue
        parts = found.groupdict()
        if parts.get("alpha"):
            part = ALPHA
        elif parts.get("magnitude"):
            part = MAGNITUDE
        else:
            part = BIAS if parts.get("bias") else _FACTOR[parts["factor"]]
            if part == BIAS and parts["factor"] not in ("B", "up"):
                return None
        return Key(found["module"] + (parts.get("stream") or ""), part, parts.get("name") or "")
    return None


def text_encoder_of(key: str) -> str:
    """The text encoder that a tensor is for, "CLIP", "T5" or "new words"; "" if for none."""
    if not _TEXT_ENCODER.match(key):
        return ""
    if "bundle_emb." in key:
        return "new words"
    return "T5" if _T5.search(key) else "CLIP"


def spelled_modules(shapes: Mapping[str, tuple[int, ...]], layout: Layout) -> dict[str, Modules]:
    """All spellings of a model's layers, without prefix and with underscores for dots.

    Args:
      shapes: the published names of the layers are its keys.
      layout: the architecture's `Layout`; only FLUX has other spellings than its own.
    """
    table = {}
    for name in shapes:
        for spelling in (name, torch_name(name, layout)):
            table[_flat(spelling)] = Modules((name,))
    if layout.architecture != FLUX.architecture:
        return table
    for name in shapes:
        found = bfl_module(name)
        if found is None:
            continue
        bfl, place = found
        names = diffusers_modules(bfl)
        modules = Modules(names, swapped=bfl == SWAPPED, foreign=True)
        table[_flat(bfl)] = modules
        if len(names) > 1:  # OMI
            table[_flat(f"{bfl}.{place}")] = Modules((name,))
        if bfl == "img_in":
            table["img_in_proj"] = modules
    for bfl_stack, stack in BLOCKS.items():
        blocks = {name.split(".")[1] for name in shapes if name.startswith(f"{stack}.")}
        for block in blocks:
            for spelling, names in _processors(bfl_stack).items():
                modules = Modules(tuple(f"{stack}.{block}.{name}" for name in names), foreign=True)
                table[_flat(f"{bfl_stack}.{block}.{spelling}")] = modules
    return table


def find_modules(module: str, table: Mapping[str, Modules], layout: Layout) -> Modules | None:
    """The layers that a file's module stands for; None if the model has none of that name.

    Args:
      module: see `Key`.
      table: from `spelled_modules`.
      layout: the architecture's `Layout`.
    """
    while True:
        found = table.get(_flat(published_name(module, layout))) or table.get(_flat(module))
        prefix = _PREFIX.match(module)
        if found or not prefix:
            return found
        module = module[prefix.end() :]


def bare_name(module: str) -> str:
    """A file's module without its prefix, as settings spell it."""
    return re.sub(r"^(base_model\.model\.)?(transformer\.|diffusion_model\.)?", "", module)


def _processors(stack: str) -> dict[str, tuple[str, ...]]:
    """XLabs' names within a block, and ComfyUI's of the first rows of `linear1`."""
    qkv = ("attn.to_q", "attn.to_k", "attn.to_v")
    if stack == SINGLE:
        return {"processor.qkv": qkv, "processor.proj": ("proj_out",), "linear1_qkv": qkv}
    assert stack == DOUBLE
    return {
        "processor.qkv1": qkv,
        "processor.qkv2": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "processor.proj1": ("attn.to_out.0",),
        "processor.proj2": ("attn.to_add_out",),
    }


def _flat(name: str) -> str:
    return name.replace(".", "_")
