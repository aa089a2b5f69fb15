"""Names what a file is instead of a LoRA for this model: another kind of adapter, another model's.

Names of the kinds' tensors: LyCORIS, peft, ComfyUI's `weight_adapter`, diffusers'
`loaders/lora_conversion_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from onereward_jax.convert.lora_names import parse_key

CONTROL = "a control adapter (it changes norms, too)"
_KINDS = (
    ("a LoKr (LyCORIS)", r"[._]lokr_\w+"),
    ("a LoHa (LyCORIS)", r"[._]hada_\w+"),
    ("a BOFT adapter", r"[._](boft_\w+|oft_blocks\.boft)"),
    ("an OFT adapter", r"[._]oft_\w+"),
    ("an IA3 adapter", r"ia3_l|\.on_input$"),
    ("a GLoRA (LyCORIS)", r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$"),
    ("a VeRA", r"vera_(lambda|A|B)"),
    ("an AdaLoRA", r"lora_E(\.|$)|\.ranknum"),
    ("a LoRA of embeddings", r"lora_embedding_[AB]"),
    ("an adapter of peft other than LoRA",
     r"\.(hra_u|bone_|miss_|c3a_|spectrum$|fourierft_|shira_|road_|vblora_|randlora_)"),
    ("an IP-Adapter", r"ip_adapter|image_proj|to_[kv]_ip|ip_hidden|ip_layers"),
    ("a ControlNet", r"controlnet|control_model\.|input_hint_block"),
    (CONTROL,
     r"(query_norm|key_norm|norm_q|norm_k|norm_added_q|norm_added_k)\.(scale|weight)"
     r"|\.(set_weight|reshape_weight)$"),
    ("a textual inversion",
     r"^(emb_params|string_to_param.*|string_to_token.*|clip_l|clip_g|t5|t5xxl|<.+>)$"),
    ("full differences of weights", r"\.(diff|diff_b|w_norm|b_norm)$"),
)  # fmt: skip
"""(kind, pattern of its tensors), searched in this order."""

_MODELS = (
    ("FLUX.2",
     r"(double|single)_stream_modulation|to_qkv_mlp_proj|ff(_context)?[._]linear_(in|out)"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)"),
    ("HunyuanVideo",
     r"(img|txt)_mlp[._]fc\d|(img|txt)_mod[._]linear|token_refiner|txt_in[._]indiv"),
    ("HiDream", r"(double|single)_stream_blocks"),
    ("Stable Diffusion 3", r"joint_blocks|joint_transformer_blocks"),
    ("Chroma", r"distilled_guidance_layer"),
    ("SDXL or Stable Diffusion 1.5",
     r"(down|up|input|output)_blocks[._]|mid_block|middle_block"),
    ("Z-Image or Lumina",
     r"(noise|context)_refiner|(^|[._])layers[._]\d+[._](attention|feed_forward)"),
    ("a language model", r"(^|[._])layers[._]\d+[._](self_attn|mlp)"),
    ("PixArt, LTX-Video or CogVideoX", r"transformer_blocks[._]\d+[._]attn[12]"),
    ("Wan or another video model",
     r"(?<!transformer_)(?<!double_)(?<!single_)blocks[._]\d+[._](self_attn|cross_attn|ffn|attn)"),
)  # fmt: skip
"""(model, pattern of its layers), searched in this order."""

_STATED = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_sd_model_name")
"""Fields of the metadata that name the base model."""


def other_kind(keys: Collection[str]) -> str:
    """What a file with these tensors is, if not a LoRA, and an example; "" if it may be one."""
    for kind, pattern in _KINDS:
        found = [key for key in keys if re.search(pattern, key)]
        # A whole transformer has norms, too.
        if found and (kind != CONTROL or any(map(parse_key, keys))):
            return f"{kind}, with {_counted(found)}"
    return ""


def other_model(modules: Collection[str], metadata: Mapping[str, str]) -> str:
    """The model that a LoRA with these layers was trained for; "" if nothing tells."""
    for model, pattern in _MODELS:
        found = [module for module in modules if re.search(pattern, module)]
        if found:
            return f"{model}{stated_base(metadata)}: it has {_counted(found, 'layers')}"
    return ""


def stated_base(metadata: Mapping[str, str]) -> str:
    """What the metadata says about the base model, in brackets; "" if nothing."""
    stated = [metadata[field] for field in _STATED if metadata.get(field)]
    return f" ({stated[0][:60]})" if stated else ""


def _counted(keys: Collection[str], noun: str = "tensors") -> str:
    example = sorted(keys)[0][:100]
    return example if len(keys) == 1 else f"{len(keys)} {noun} such as {example}"
