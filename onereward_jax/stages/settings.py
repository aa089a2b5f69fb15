"""From config sections to the plain dataclasses that training takes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.models.lora import LoraConfig
from onereward_jax.parallel import check_microbatches
from onereward_jax.reward import Jitter, QueryTemplate, read_template
from onereward_jax.stages.guidance_settings import rl_guidance
from onereward_jax.storage import local_path
from onereward_jax.tasks import SAMPLING_PROBABILITIES, Dimension, Task
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.reward_step import RewardConfig
from onereward_jax.training.rl_config import ALGORITHMS, RLConfig

DTYPES = ("float32", "bfloat16", "float16")

VOCABULARIES = {"full": False, "yes_no": True}
"""config.rl.vocabulary and .reward.vocabulary -> `Scorer.answers_only`."""


def chosen(value: str, field: str, choices: Any) -> str:
    """The value of a field that has to be one of some.

    Raises:
      ValueError: it is none of them, naming the field.
    """
    if value not in choices:
        raise ValueError(f"{field} is {value!r}: choose one of {', '.join(choices)}")
    return value


def dtype_named(name: str, field: str) -> jnp.dtype:
    """The dtype that a field of the config names.

    Raises:
      ValueError: it is none of `DTYPES`.
    """
    return jnp.dtype(chosen(name, field, DTYPES))


def compute_dtype(config: FrozenConfigDict) -> jnp.dtype:
    """`config.models.dtype`; raises as `dtype_named`."""
    return dtype_named(config.models.dtype, "config.models.dtype")


def model_kinds(config: FrozenConfigDict) -> dict[str, Any]:
    """How a model that is trained computes: keyword arguments of its reader."""
    return {"dtype": compute_dtype(config), "remat": config.models.remat}


def answers_only(config: FrozenConfigDict, stage: str) -> bool:
    """Whether the judge of "reward" or "rl" answers over {Yes, No} alone.

    Raises:
      ValueError: `config.<stage>.vocabulary` is none of `VOCABULARIES`.
    """
    return VOCABULARIES[
        chosen(config[stage].vocabulary, f"config.{stage}.vocabulary", VOCABULARIES)
    ]


UNFIT_PROMPTS = {"refuse": False, "cut": True}
"""config.reward.unfit_prompts -> `QueryTokenizer`'s `cut_prompts`."""


def cut_prompts(config: FrozenConfigDict) -> bool:
    """Whether prompts that a query cannot hold are cut.

    Raises:
      ValueError: `config.reward.unfit_prompts` is none of `UNFIT_PROMPTS`.
    """
    value = chosen(config.reward.unfit_prompts, "config.reward.unfit_prompts", UNFIT_PROMPTS)
    return UNFIT_PROMPTS[value]


def query_options(config: FrozenConfigDict) -> dict[str, Any]:
    """How prompts get into queries, for every judge: arguments of `read_reward_model`."""
    return {"suffix_length": config.reward.suffix_length, "cut_prompts": cut_prompts(config)}


def query_template(config: FrozenConfigDict) -> QueryTemplate | None:
    """The template that the judge is trained with; None: that of the judge it starts from.

    Raises:
      FileNotFoundError, ValueError: as `read_template`, naming the field.
    """
    path = config.reward.query_template
    if not path:
        return None
    try:
        return read_template(local_path(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"config.reward.query_template: {error}") from error


def reward_options(config: FrozenConfigDict) -> dict[str, Any]:
    """How the judge of the stage `reward` is read: arguments of `read_reward_model`."""
    return {
        **query_options(config),
        "template": query_template(config),
        "answers_only": answers_only(config, "reward"),
        **model_kinds(config),
    }


def reward_settings(config: FrozenConfigDict) -> RewardConfig:
    """The section `reward` as the step takes it."""
    section = config.reward
    return RewardConfig(
        microbatches=section.microbatches,
        jitter=_made(Jitter, section.jitter, "config.reward.jitter"),
        seed=config.seed,
        optimizer=optimizer_settings(section.optimizer, section.steps, "reward"),
    )


def editor_options(config: FrozenConfigDict) -> dict[str, Any]:
    """How the editor of the stage rl is read: keyword arguments of `read_policy`.

    The base of an adapter is never updated, so there need be no float32 master of it.
    """
    kinds = model_kinds(config)
    return kinds | {
        "param_dtype": kinds["dtype"] if config.rl.lora.rank else jnp.float32,
        "paste_back": config.models.paste_back,
    }


def judge_options(config: FrozenConfigDict) -> dict[str, Any]:
    """How the judge of the stage rl is read: keyword arguments of `read_reward_model`.

    Its weights do not learn here, so they are kept in the dtype they are computed with.
    """
    return {
        **query_options(config),
        "answers_only": answers_only(config, "rl"),
        "param_dtype": compute_dtype(config),
        **model_kinds(config),
    }


def rl_settings(config: FrozenConfigDict) -> RLConfig:
    """The section `rl`, and `guidance`, as the step takes it.

    Raises:
      ValueError: a field out of range, by its name in the config.
    """
    section, guidance = config.rl, rl_guidance(config)
    chosen(section.algorithm, "config.rl.algorithm", ALGORITHMS)
    if not 0 <= section.t1 <= section.t2 < section.num_steps:
        raise ValueError(
            f"config.rl.t1 is {section.t1} and config.rl.t2 is {section.t2}: indices of the "
            f"sampling grid are wanted, 0 <= t1 <= t2 < config.rl.num_steps, {section.num_steps}"
        )
    if section.microbatches < 1:
        raise ValueError(f"config.rl.microbatches is {section.microbatches}: at least 1 is wanted")
    lora = _made(LoraConfig, section.lora, "config.rl.lora") if section.lora.rank else None
    fields = dict(
        algorithm=section.algorithm,
        reward_upper_bound=section.reward_upper_bound,
        dimension_weights=dimension_weights(config),
        ema_decay=section.ema_decay,
        num_steps=section.num_steps,
        t1=section.t1,
        t2=section.t2,
        guidance_scale=guidance["policy"].guidance_scale,
        reference_true_cfg_scale=guidance["reference"].true_cfg_scale,
        policy_true_cfg_scale=guidance["policy"].true_cfg_scale,
        prediction_true_cfg_scale=guidance["prediction"].true_cfg_scale,
        flow_matching_weight=section.flow_matching_weight,
        jitter=_made(Jitter, section.jitter, "config.rl.jitter"),
        microbatches=section.microbatches,
        optimizer=optimizer_settings(section.optimizer, section.steps, "rl"),
        lora=lora,
    )
    try:
        return RLConfig(**fields)
    except ValueError as error:
        raise ValueError(f"config.rl: {error}") from error


def dimension_weights(config: FrozenConfigDict) -> tuple[float, ...]:
    """`config.rl.dimension_weights`, in the order of `tasks.Dimension`."""
    return tuple(float(config.rl.dimension_weights[one.value]) for one in Dimension)


def task_probabilities(config: FrozenConfigDict) -> dict[Task, float]:
    """p_k of the tasks that are drawn at all; they sum to 1.

    The paper's, in a config without the section `rl`.

    Raises:
      ValueError: `config.rl.task_probabilities` has a number below 0, or nothing above it.
    """
    if "rl" not in config:
        return dict(SAMPLING_PROBABILITIES)
    section = config.rl.task_probabilities
    given = {task: float(section[task.value]) for task in Task}
    for task, value in given.items():
        if value < 0:
            raise ValueError(f"config.rl.task_probabilities.{task.value} is {value}: below 0")
    total = sum(given.values())
    if not total:
        raise ValueError("config.rl.task_probabilities: all are 0, so that no task would be drawn")
    return {task: value / total for task, value in given.items() if value}


def check_batch(config: FrozenConfigDict, stage: str, mesh: Mesh) -> None:
    """Makes sure that every device has a sample of every microbatch.

    Raises:
      ValueError: `config.<stage>.batch_size` cannot be split over the mesh.
    """
    section = config[stage]
    try:
        check_microbatches(section.batch_size, section.get("microbatches", 1), mesh)
    except ValueError as error:
        raise ValueError(f"config.{stage}.batch_size, config.mesh: {error}") from error


def optimizer_settings(section: FrozenConfigDict, steps: int, stage: str) -> OptimizerConfig:
    """The section `optimizer` of `stage`, which trains for `steps` updates.

    Raises:
      ValueError: naming the field.
    """
    name = f"config.{stage}.optimizer"
    if section.schedule == "cosine" and steps <= section.warmup_steps:
        raise ValueError(
            f"{name}.warmup_steps is {section.warmup_steps}: a cosine schedule needs more steps "
            f"than that, config.{stage}.steps is {steps}"
        )
    return _made(OptimizerConfig, section, name, total_steps=steps)


def _made(kind: type, section: FrozenConfigDict, name: str, **more: Any) -> Any:
    """The dataclass `kind` of a section's fields; what it refuses is named after the section."""
    try:
        return kind(**plain(section), **more)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def plain(section: FrozenConfigDict) -> dict[str, Any]:
    """A section as a plain dictionary."""
    return section.as_configdict().to_dict()
