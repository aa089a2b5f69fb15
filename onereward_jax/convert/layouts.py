"""How each Hugging Face checkpoint differs from our Flax tree: one `Layout` per model.

Most of the mapping is mechanical (`tensor_names.py`); a layout lists only the exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Config = Mapping[str, Any]
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"


@dataclass(frozen=True)
class Layout:
    """How the tensor names and shapes of one architecture map to a Flax tree.

    Attributes:
      architecture: class name in `config.json` (`_class_name` in diffusers, `architectures` in
        transformers).
      basename: base name of the weight files that the original `from_pretrained` looks for.
      model_type: `model_type` in transformers; None for a diffusers model.
      stacks: dotted names of the layer lists that our modules may scan over; leaves below them
        then have a leading layer axis.
      aliases: (pattern, replacement) pairs that map any known spelling of a tensor name to the
        published one. They apply to files and to Flax paths, so files of old and new library
        versions both load. Two file tensors with the same published name are tied copies; one of
        them is read.
      verbatim: module names that end in `_<digits>` in the original too, e.g. `linear_1`.
      ignored: pattern of file tensors that are not parameters (position buffers).
      tied: published names of file tensors that are tied to another tensor; not read if the model
        has no parameter for them.
      flattened: published name of a convolution that our module implements as a Dense over
        flattened patches -> function of the config that returns its kernel shape (in, *window).
      unadapted: published names of kernels that take no LoRA adapter.
      torch_names: (pattern, replacement) pairs from published names to those of torch modules.
    """

    architecture: str
    basename: str
    model_type: str | None = None
    stacks: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    verbatim: frozenset[str] = frozenset()
    ignored: str = r"(?!)"
    tied: frozenset[str] = frozenset()
    flattened: Mapping[str, Callable[[Config], tuple[int, ...]]] = field(default_factory=dict)
    unadapted: frozenset[str] = frozenset()
    torch_names: tuple[tuple[str, str], ...] = ()


def statement(layout: Layout) -> dict[str, Any]:
    """The fields of a config.json that name this architecture."""
    if layout.model_type is None:
        return {"_class_name": layout.architecture}
    return {"architectures": [layout.architecture], "model_type": layout.model_type}


def stated_architecture(config: Config) -> str | None:
    """The architecture named in a config.json."""
    names = config.get("architectures")
    return config.get("_class_name") or (names[0] if isinstance(names, list) and names else None)


def check_architecture(config: Config, layout: Layout, source: str) -> None:
    """Raises ValueError, naming the `source` of the config, if it has another architecture."""
    stated = stated_architecture(config)
    if stated is None and layout.model_type and config.get("model_type") == layout.model_type:
        return  # as for transformers, which goes by the model_type alone
    if stated != layout.architecture:
        raise ValueError(f"{source} describes a {stated}; expected a {layout.architecture}")


def _patch_window(config: Config) -> tuple[int, ...]:
    """Kernel shape of Qwen2.5-VL's patch embedding: (channels, frames, height, width).

    Missing fields have transformers' defaults.
    """
    vision = config.get("vision_config", {})
    patch = vision.get("patch_size", 14)
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    return (channels, vision.get("temporal_patch_size", 2), patch, patch)


FLUX = Layout(
    architecture="FluxTransformer2DModel",
    basename=DIFFUSERS,
    stacks=("transformer_blocks", "single_transformer_blocks"),
    verbatim=frozenset({"linear_1", "linear_2"}),
)

VAE = Layout(architecture="AutoencoderKL", basename=DIFFUSERS)

T5 = Layout(
    architecture="T5EncoderModel",
    basename=TRANSFORMERS,
    model_type="t5",
    stacks=("encoder.block",),
    aliases=(
        (r"^encoder\.embed_tokens\.", "shared."),
        # In our model it is outside the scanned blocks, which all share it.
        (
            r"^encoder\.relative_attention_bias\.",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.",
        ),
    ),
    verbatim=frozenset({"wi_0", "wi_1"}),
)

CLIP = Layout(
    architecture="CLIPTextModel",
    basename=TRANSFORMERS,
    model_type="clip_text_model",
    stacks=("text_model.encoder.layers",),
    # transformers 5 writes the names without `text_model.`; every published file has it.
    aliases=((r"^(embeddings|encoder|final_layer_norm)\.", r"text_model.\1."),),
    ignored=r"\.position_ids$",
)

CLIP_VISION = Layout(
    architecture="CLIPVisionModelWithProjection",
    basename=TRANSFORMERS,
    model_type="clip_vision_model",
    stacks=("vision_model.encoder.layers",),
    aliases=((r"^(embeddings|encoder|pre_layrnorm|post_layernorm)\.", r"vision_model.\1."),),
    ignored=r"\.position_ids$",
)

CLIP_BOTH = replace(
    CLIP_VISION,
    architecture="CLIPModel",
    model_type="clip",
    ignored=r"\.position_ids$|^text_model\.|^text_projection\.|^logit_scale$",
)
"""A folder with both towers, of which only the vision tower is read."""

CLIP_BOTH_TEXT = replace(
    CLIP_BOTH,
    stacks=("text_model.encoder.layers",),
    aliases=(),
    ignored=r"\.position_ids$|^vision_model\.|^visual_projection\.|^logit_scale$",
)
"""The same, of which only the text tower is read."""

QWEN2_5_VL = Layout(
    architecture="Qwen2_5_VLForConditionalGeneration",
    basename=TRANSFORMERS,
    model_type="qwen2_5_vl",
    stacks=("visual.blocks", "model.layers"),
    # Published files have visual.*, model.layers.*; the torch modules of transformers >= 4.52
    # have model.visual.*, model.language_model.layers.*
    # vLLM has language_model.model.layers.*; DDP, FSDP, torch.compile and peft wrap modules.
    aliases=(
        (r"^((module|_orig_mod|_fsdp_wrapped_module|base_model\.model)\.)+", ""),
        (r"\._fsdp_wrapped_module\.|\._checkpoint_wrapped_module\.|\._orig_mod\.", "."),
        (r"^model\.visual\.", "visual."),
        (r"^(model\.)?language_model\.lm_head\.", "lm_head."),
        (r"^(model\.)?language_model\.(model\.)?", "model."),
    ),
    ignored=r"\.inv_freq$",
    tied=frozenset({"lm_head.weight"}),
    flattened={"visual.patch_embed.proj.weight": _patch_window},
    unadapted=frozenset({"lm_head.weight"}),
    torch_names=((r"^model\.", "model.language_model."), (r"^visual\.", "model.visual.")),
)
