"""From sections of the config to what the layers below take; each stage has its own beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.parallel import check_microbatches
from onereward_jax.training.online_config import ONLINE, check_groups
from onereward_jax.training.optimizer import OptimizerConfig

DTYPES = ("float32", "bfloat16", "float16")


def from_section(kind: type, section: FrozenConfigDict, name: str, **others: Any) -> Any:
    """The dataclass `kind` with the fields of a section of the same names.

    Args:
      kind: checks its fields, in messages that begin with a field's name.
      section: may have fields that `kind` does not have.
      name: of the section, as in "config.rl".
      **others: fields that the section does not have, or has in another form.

    Raises:
      ValueError: what `kind` refuses, with the field's name in the config.
    """
    names = {field.name for field in dataclasses.fields(kind)} - others.keys()
    try:
        return kind(**{field: section[field] for field in names if field in section}, **others)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error


def plain(section: FrozenConfigDict) -> dict[str, Any]:
    """A section as a plain dictionary."""
    return section.as_configdict().to_dict()


def chosen(value: str, field: str, choices: Any) -> str:
    """The value of a field that has to be one of some.

    Raises:
      ValueError: it is none of them, naming the field.
    """
    if value not in choices:
        raise ValueError(f"{field} is {value!r}: choose one of {', '.join(choices)}")
    return value


def compute_dtype(config: FrozenConfigDict) -> jnp.dtype:
    """What `config.models.dtype` names.

    Raises:
      ValueError: none of `DTYPES`.
    """
    return jnp.dtype(chosen(config.models.dtype, "config.models.dtype", DTYPES))


def model_kinds(config: FrozenConfigDict) -> dict[str, Any]:
    """How a model that is trained computes: keyword arguments of its reader."""
    return {"dtype": compute_dtype(config), "remat": config.models.remat}


def optimizer_of(config: FrozenConfigDict, stage: str) -> OptimizerConfig:
    """`config.<stage>.optimizer`, which ends with the steps of the stage.

    Raises:
      ValueError: naming the field.
    """
    section = config[stage]
    return from_section(
        OptimizerConfig,
        section.optimizer,
        f"config.{stage}.optimizer",
        total_steps=section.steps,
    )


def check_batch(config: FrozenConfigDict, stage: str, mesh: Mesh) -> None:
    """Makes sure that every device has a sample of every microbatch.

    Raises:
      ValueError: `config.<stage>.batch_size` cannot be split over the mesh.
    """
    section = config[stage]
    microbatches = section.get("microbatches", 1)
    try:
        if stage == "rl" and section.algorithm in ONLINE:
            parts = microbatches * (section.inner_updates if section.algorithm == "grpo" else 1)
            check_groups(section.batch_size, section.group_size, parts, mesh)
        else:
            check_microbatches(section.batch_size, microbatches, mesh)
    except ValueError as error:
        raise ValueError(f"config.{stage}.batch_size, config.mesh: {error}") from error
