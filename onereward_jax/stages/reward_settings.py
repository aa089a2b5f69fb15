"""The config section `reward`: loading, queries and training of the judge."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from onereward_jax.models.lora import LoraConfig
from onereward_jax.reward import (
    Jitter,
    JudgeView,
    QueryTemplate,
    packaged_scalar_template,
    packaged_template,
    read_template,
)
from onereward_jax.stages.settings import (
    chosen,
    compute_dtype,
    from_section,
    model_kinds,
    optimizer_of,
)
from onereward_jax.storage import local_path
from onereward_jax.training.reward_step import RewardConfig

VOCABULARIES = {"full": False, "yes_no": True}
"""config.rl.vocabulary and .reward.vocabulary -> `Scorer.answers_only`."""

UNFIT_PROMPTS = {"refuse": False, "cut": True}
"""config.reward.unfit_prompts -> `QueryTokenizer`'s `cut_prompts`."""


def answers_only(config: FrozenConfigDict, stage: str) -> bool:
    """Whether the judge of "reward" or "rl" normalises over {Yes, No} only.

    Raises:
      ValueError: `config.<stage>.vocabulary` is not one of `VOCABULARIES`.
    """
    return VOCABULARIES[
        chosen(config[stage].vocabulary, f"config.{stage}.vocabulary", VOCABULARIES)
    ]


def query_options(config: FrozenConfigDict) -> dict[str, Any]:
    """Query arguments of `read_reward_model`, for all judges.

    Raises:
      ValueError: `config.reward.unfit_prompts` is not one of `UNFIT_PROMPTS`.
    """
    section = config.reward
    unfit = chosen(section.unfit_prompts, "config.reward.unfit_prompts", UNFIT_PROMPTS)
    return {"suffix_length": section.suffix_length, "cut_prompts": UNFIT_PROMPTS[unfit]}


def query_template(config: FrozenConfigDict) -> QueryTemplate | None:
    """The template for training the judge; None: that of the initial judge.

    A scalar judge has a wording of its own, since the initial judge compares.

    Raises:
      FileNotFoundError, ValueError: as `read_template`, with the config field.
    """
    path, kind = config.reward.query_template, config.reward.kind
    pictures = 1 if kind == "scalar" else 2
    if not path:
        return packaged_scalar_template() if kind == "scalar" else None
    try:
        template = read_template(local_path(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"config.reward.query_template: {error}") from error
    if template.pictures != pictures:
        raise ValueError(
            f"config.reward.query_template {path} is about {template.pictures} pictures, but "
            f"config.reward.kind is {kind!r}: {pictures} expected"
        )
    return template


def trained_template_version(config: FrozenConfigDict) -> str:
    """Version of the template that the judge is trained with; "": that of the initial judge.

    Raises:
      FileNotFoundError, ValueError: as `query_template`.
    """
    template, source = query_template(config), config.reward.source
    if template is None and not source:
        return ""
    return (template or packaged_template()).showing(source).version


def trained_view(config: FrozenConfigDict) -> JudgeView:
    """What the judge of the stage `reward` is trained to see.

    Raises:
      ValueError: a field is out of range; named as in the config.
    """
    return from_section(JudgeView, config.reward, "config.reward")


def reward_options(config: FrozenConfigDict) -> dict[str, Any]:
    """Arguments of `read_reward_model` for the judge of the stage `reward`.

    The base of an adapter is not trained, so it needs no float32 master weights.
    """
    return {
        "param_dtype": compute_dtype(config) if config.reward.lora.rank else jnp.float32,
        **query_options(config),
        "template": query_template(config),
        "view": trained_view(config),
        "answers_only": answers_only(config, "reward"),
        **model_kinds(config),
    }


def reward_settings(config: FrozenConfigDict) -> RewardConfig:
    """The section as a `RewardConfig`.

    Raises:
      ValueError: a field is out of range; named as in the config.
    """
    lora = None
    if config.reward.lora.rank:
        lora = from_section(LoraConfig, config.reward.lora, "config.reward.lora")
    return from_section(
        RewardConfig,
        config.reward,
        "config.reward",
        lora=lora,
        jitter=from_section(Jitter, config.reward.jitter, "config.reward.jitter"),
        seed=config.seed,
        optimizer=optimizer_of(config, "reward"),
    )
