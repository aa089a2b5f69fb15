"""Which model or pipeline a folder holds, according to its JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onereward_jax.common.listing import shown
from onereward_jax.convert.layouts import Layout, check_architecture, stated_architecture
from onereward_jax.convert.safetensors_reader import read_config, read_json

FILL_PIPELINE = "FluxFill"
"""Prefix of the class names of fill pipelines: diffusers' own and the authors' with true CFG."""


def component_config(folder: str | Path, layout: Layout) -> dict[str, Any]:
    """The config.json of one component.

    Raises:
      FileNotFoundError: no folder, or no config.json in it.
      ValueError: it describes another architecture, or quantized weights.
    """
    config = one_models_config(folder, layout)
    check_architecture(config, layout, f"{folder}/config.json")
    if settings := config.get("quantization_config"):
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        raise ValueError(
            f"{folder}/config.json: its weights are quantized ({shown(method or 'unknown')}), "
            "which is not read: take the model in bfloat16 or float16, or a single file in 8 bits"
        )
    return config


def one_models_config(folder: str | Path, layout: Layout) -> dict[str, Any]:
    """The config.json of one model of any architecture; errors name that of `layout`.

    Raises:
      FileNotFoundError: no folder, or no config.json in it.
      ValueError: the folder holds a pipeline.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder} holds a {_pipeline(folder)}; expected a {layout.architecture} alone"
        )
    return read_config(folder)


def check_fill_pipeline(folder: str | Path) -> None:
    """Checks that `folder` holds a full fill pipeline, like FLUX.1-Fill-dev.

    Raises:
      FileNotFoundError: no folder, or neither model_index.json nor config.json in it.
      ValueError: it is another pipeline or a single model.
    """
    folder = Path(folder)
    if (folder / "model_index.json").is_file():
        if not _pipeline(folder).startswith(FILL_PIPELINE):
            raise ValueError(
                f"{folder}/model_index.json describes a {_pipeline(folder)}; expected a "
                f"{FILL_PIPELINE}Pipeline"
            )
    elif (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds a {stated_architecture(read_config(folder))} alone; expected a full "
            f"{FILL_PIPELINE}Pipeline "
            "(a transformer alone goes with one: --transformer, config.models.transformer)"
        )
    elif folder.is_dir():
        raise FileNotFoundError(f"{folder}/model_index.json does not exist")
    else:
        raise FileNotFoundError(f"model folder {folder} does not exist")


def _pipeline(folder: Path) -> str:
    return str(read_json(folder / "model_index.json").get("_class_name"))
