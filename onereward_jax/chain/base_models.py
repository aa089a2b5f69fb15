"""Models and data made by an earlier stage of the same run: `config.models.editor = "stage:..."`.

"stage:pretrain/editor" is the folder pretrain/editor in the work folder, "stage:curate" the folder
curate.
"""

from __future__ import annotations

import pathlib

from ml_collections import FrozenConfigDict

MODELS = ("models.editor", "models.judge")
"""Config fields that may name such a model."""

MADE = (*MODELS, "data.path")
"""All config fields that may name the output of a stage."""

_PREFIX = "stage:"


def made_by(config: FrozenConfigDict, field: str) -> str:
    """The stage that makes what a field names; "" if no stage does.

    Args:
      config: the full config.
      field: one of `MADE`.
    """
    name = _value(config, field)
    return name.removeprefix(_PREFIX).split("/")[0] if name.startswith(_PREFIX) else ""


def made_folder(config: FrozenConfigDict, field: str, workdir: pathlib.Path) -> pathlib.Path:
    """The folder: "stage:pretrain/editor" is <workdir>/pretrain/editor."""
    return workdir / _value(config, field).removeprefix(_PREFIX)


def _value(config: FrozenConfigDict, field: str) -> str:
    section, name = field.split(".")
    return config[section][name]
