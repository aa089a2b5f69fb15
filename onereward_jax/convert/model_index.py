"""What a folder holds, by what its JSON files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onereward_jax.convert.layouts import Layout, check_architecture, stated_architecture
from onereward_jax.convert.safetensors_reader import read_config, read_json

FILL_PIPELINE = "FluxFill"
"""Beginning of the names of pipelines that fill: diffusers' own, and the authors' with guidance."""


def component_config(folder: str | Path, layout: Layout) -> dict[str, Any]:
    """The config.json of one component.

    Raises:
      FileNotFoundError: no folder, or no config.json in it.
      ValueError: it describes another architecture.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder} holds a {_pipeline(folder)}; expected a {layout.architecture} alone"
        )
    config = read_config(folder)
    check_architecture(config, layout, f"{folder}/config.json")
    return config


def check_fill_pipeline(folder: str | Path) -> None:
    """Raises unless `folder` is that of a whole pipeline, as FLUX.1-Fill-dev is.

    Raises:
      FileNotFoundError: no folder, or nothing in it that says what it is.
      ValueError: it is another pipeline, or one model alone.
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
            f"{folder} holds a {stated_architecture(read_config(folder))} alone; expected a whole "
            f"{FILL_PIPELINE}Pipeline (a transformer alone is given beside one)"
        )
    elif folder.is_dir():
        raise FileNotFoundError(f"{folder}/model_index.json does not exist")
    else:
        raise FileNotFoundError(f"model folder {folder} does not exist")


def _pipeline(folder: Path) -> str:
    return str(read_json(folder / "model_index.json").get("_class_name"))
