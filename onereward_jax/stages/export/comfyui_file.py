"""The trained transformer as a single file for ComfyUI, with a README.md of where it goes.

comfyui/diffusion_models/onereward_<weights>_<dtype>.safetensors
comfyui/README.md
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from onereward_jax.chain.stage import StageContext
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.single_file_writer import write_single_file
from onereward_jax.models.flux import FluxConfig
from onereward_jax.parallel import is_writer
from onereward_jax.stages.export.card_origin import origin_of
from onereward_jax.stages.export.diffusers_call import call_of
from onereward_jax.stages.export.model_card import TEMPLATES

COMFYUI = "comfyui"
TEMPLATE = "comfyui.md"
MODELS = "diffusion_models"
"""ComfyUI's folder of transformers, below its `models`."""

FLUX_WIDTH = 3072
"""The only width of FLUX that ComfyUI knows."""

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8_e4m3fn"}
"""dtype -> how files for ComfyUI call it."""


def write_comfyui(
    context: StageContext, folder: Path, params: Any, architecture: Mapping[str, Any]
) -> None:
    """Writes file and README.md, atomically; all processes must call it.

    Args:
      context: context of the stage.
      folder: replaced as a whole.
      params: the transformer's parameters.
      architecture: its config.json.

    Raises:
      ValueError: as `write_single_file`.
    """
    config = context.config.export
    name = f"onereward_{config.weights}_{SHORT[config.comfyui]}.safetensors"
    with atomic_folder(folder) as draft:
        if is_writer():
            (draft / MODELS).mkdir()
        path = draft / MODELS / name
        write_single_file(path, params, config=architecture, dtype=config.comfyui)
        if is_writer():
            card = comfyui_card(context, name, architecture)
            (draft / "README.md").write_text(card, encoding="utf-8")


def comfyui_card(context: StageContext, name: str, architecture: Mapping[str, Any]) -> str:
    """The text of README.md: where the file goes, nodes and their settings.

    Args:
      context: context of the stage.
      name: name of the file.
      architecture: config.json of the transformer.
    """
    origin = origin_of(context, "editor")
    card = ModelCard.from_template(
        origin.card_data(pipeline_tag="image-to-image", tags=["comfyui", "flux", "inpainting"]),
        template_str=(TEMPLATES / TEMPLATE).read_text(encoding="utf-8"),
        file=name,
        folder=MODELS,
        in_8_bits=context.config.export.comfyui == "float8_e4m3fn",
        call=call_of(context),
        is_flux=FluxConfig.from_dict(architecture).inner_dim == FLUX_WIDTH,
    )
    return str(card)
