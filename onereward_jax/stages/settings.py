"""From config sections to the plain dataclasses that training takes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from onereward_jax.reward import Jitter
from onereward_jax.training.optim import OptimizerConfig
from onereward_jax.training.reward_step import RewardConfig

DTYPES = ("float32", "bfloat16", "float16")


def dtype_named(name: str, field: str) -> jnp.dtype:
    """The dtype that a field of the config names.

    Raises:
      ValueError: it is none of `DTYPES`.
    """
    if name not in DTYPES:
        raise ValueError(f"{field} is {name!r}: choose one of {', '.join(DTYPES)}")
    return jnp.dtype(name)


def compute_dtype(config: FrozenConfigDict) -> jnp.dtype:
    """`config.models.dtype`; raises as `dtype_named`."""
    return dtype_named(config.models.dtype, "config.models.dtype")


def model_kinds(config: FrozenConfigDict) -> dict[str, Any]:
    """How a model that is trained computes: keyword arguments of its reader."""
    return {"dtype": compute_dtype(config), "remat": config.models.remat}


def reward_options(config: FrozenConfigDict) -> dict[str, Any]:
    """How the judge is read that the stage `reward` trains: keyword arguments of `read_judge`."""
    return {
        "suffix_length": config.reward.suffix_length,
        "answers_only": config.reward.vocabulary == "yes_no",
        **model_kinds(config),
    }


def reward_settings(config: FrozenConfigDict) -> RewardConfig:
    """The section `reward` as the step takes it."""
    section = config.reward
    return RewardConfig(
        microbatches=section.accumulate,
        jitter=Jitter(**plain(section.jitter)),
        seed=config.seed,
        optimizer=optimizer_settings(section.optimizer, section.steps),
    )


def optimizer_settings(section: FrozenConfigDict, steps: int) -> OptimizerConfig:
    """The section `optimizer` of a stage that trains for `steps` updates."""
    return OptimizerConfig(**plain(section), total_steps=steps)


def plain(section: FrozenConfigDict) -> dict[str, Any]:
    """A section as a plain dictionary."""
    return section.as_configdict().to_dict()
