"""Kinds of files that are not read as a transformer: what each is, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04")
"""First bytes of files of torch.save: a zip archive, or pickle itself."""

_MODELS = (
    # (pattern of tensor names, what the file holds)
    (
        r"\.(lora_[AB]|lora_(up|down)|lokr_w\d|hada_w\d_\w|diff_b?|dora_scale)(\.|$)|^lora_",
        "an adapter (LoRA): pass it as --lora",
    ),
    (r"double_stream_modulation_img\.|\.norm_k\.weight_orig", "a FLUX.2 model"),
    (r"distilled_guidance_layer\.", "a Chroma model"),
    (r"controlnet_x_embedder\.|controlnet_blocks\.|pos_embed_input\.", "a ControlNet"),
    (r"joint_blocks\.|pos_embed\.proj\.", "a Stable Diffusion 3 model"),
    (r"^(model\.diffusion_model\.)?input_blocks\.|^down_blocks\.\d+\.(resnets|attentions)",
     "a Stable Diffusion U-Net"),
    (r"transformer_blocks\.\d+\.(img_mod|img_mlp)\.", "a Qwen-Image model"),
    (r"noise_refiner\.|cap_embedder\.", "a Lumina or Z-Image model"),
    (r"(^|\.)blocks\.\d+\.(self_attn|cross_attn)\.", "a video model"),
    (r"^(encoder|decoder)\.(down|up|mid|conv)", "an autoencoder (VAE)"),
    (r"^(text_model\.|transformer\.text_model\.)", "a CLIP text encoder"),
    (r"^(encoder\.block\.\d|shared\.weight)", "a T5 text encoder"),
    (r"(^|\.)layers\.\d+\.(self_attn|mlp)\.", "a language model"),
)  # fmt: skip

_QUANTIZED = (
    (r"\.(absmax|quant_map|quant_state\.|nested_absmax)", "NF4 or FP4 (bitsandbytes)"),
    (r"\.(SCB|weight_format)$", "INT8 (bitsandbytes)"),
    (r"\.(wscales|wtscale|smooth_factor|smooth|lora_down_svd)", "SVDQuant (nunchaku)"),
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.(weight_scale_2|weight_packed)$", "NVFP4 or packed 4-bit"),
    (r"\.(weight_s_rel|weight_s_channel|weight_codebook)$", "4-bit with a codebook"),
    (r"\._(data|scale|shift)$|\.(input|output)_scale_quanto", "quanto"),
)


def refused_model(names: Iterable[str]) -> str | None:
    """What another model's tensor names belong to, e.g. "a FLUX.2 model"; None: not known."""
    return _first_match(_MODELS, names)


def refused_quantization(names: Iterable[str]) -> str | None:
    """The kind of quantization that the tensor names belong to; None: none of those known."""
    return _first_match(_QUANTIZED, names)


def check_weights_file(path: Path) -> None:
    """Raises ValueError, saying what it is, for a file that is neither safetensors nor GGUF."""
    with path.open("rb") as file:
        start = file.read(16)
    if path.suffix.lower() in PICKLES or start.startswith(
        (b"PK\x03\x04", b"\x80\x02", b"\x80\x04")
    ):
        raise ValueError(
            f"{path} is a pickle, which can run code when it is opened: convert it to safetensors "
            "first, in the program that wrote it"
        )
    if start.startswith(b"version https://"):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder"
        )
    if start[:1] in b"<" and start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page, not weights: the download needs a login")


def _first_match(table: Iterable[tuple[str, str]], names: Iterable[str]) -> str | None:
    names = tuple(names)
    for pattern, kind in table:
        if any(re.search(pattern, name) for name in names):
            return kind
    return None
