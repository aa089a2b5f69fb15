"""From config sections to the plain dataclasses that training takes."""

from __future__ import annotations

from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.training.optim import OptimizerConfig


def optimizer_settings(section: FrozenConfigDict, steps: int) -> OptimizerConfig:
    """The section `optimizer` of a stage that trains for `steps` updates."""
    return OptimizerConfig(**plain(section), total_steps=steps)


def plain(section: FrozenConfigDict) -> dict[str, Any]:
    """A section as a plain dictionary."""
    return section.as_configdict().to_dict()
