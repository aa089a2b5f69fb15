"""Base models made by an earlier stage of the same run: `config.models.editor = "stage:..."`."""

from __future__ import annotations

import pathlib

from ml_collections import FrozenConfigDict

MODELS = ("models.editor", "models.judge")
"""Config fields that may name such a model."""

_PREFIX = "stage:"


def made_by(config: FrozenConfigDict, field: str) -> str:
    """The stage that makes the model of a field; "" if no stage does.

    Args:
      config: the full config.
      field: one of `MODELS`.
    """
    name = config.models[field.removeprefix("models.")]
    return name.removeprefix(_PREFIX).split("/")[0] if name.startswith(_PREFIX) else ""


def made_folder(config: FrozenConfigDict, field: str, workdir: pathlib.Path) -> pathlib.Path:
    """The model's folder: "stage:pretrain/editor" is <workdir>/pretrain/editor."""
    return workdir / config.models[field.removeprefix("models.")].removeprefix(_PREFIX)
