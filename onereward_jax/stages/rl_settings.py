"""The config section `rl`: loading of editor and judge, settings of the RL step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from onereward_jax.chain.plugins import maker
from onereward_jax.chain.staleness import Effect
from onereward_jax.models.lora import LoraConfig
from onereward_jax.reward import Jitter
from onereward_jax.stages.guidance_settings import rl_guidance
from onereward_jax.stages.reward_settings import answers_only, query_options
from onereward_jax.stages.settings import compute_dtype, from_section, model_kinds, optimizer_of
from onereward_jax.tasks import SAMPLING_PROBABILITIES, Dimension, Task
from onereward_jax.training.algorithm import Algorithm
from onereward_jax.training.methods import METHODS, Method, reward_feedback
from onereward_jax.training.online_config import ONLINE, OnlineConfig
from onereward_jax.training.rl_balance import Balance
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.rl_step import make_rl_step


def editor_options(config: FrozenConfigDict) -> dict[str, Any]:
    """Keyword arguments of `read_policy` for the editor of the stage `rl`.

    The base of an adapter is not trained, so it needs no float32 master weights.
    """
    kinds = model_kinds(config)
    return kinds | {
        "param_dtype": kinds["dtype"] if config.rl.lora.rank else jnp.float32,
        "paste_back": config.models.paste_back,
        "solver": config.models.solver,
    }


def judge_options(config: FrozenConfigDict) -> dict[str, Any]:
    """Keyword arguments of `read_reward_model` for the judge of the stage `rl`.

    Its weights are not trained here, so they are stored in the compute dtype.
    """
    return {
        **query_options(config),
        "answers_only": answers_only(config, "rl"),
        "param_dtype": compute_dtype(config),
        **model_kinds(config),
    }


def panel_options(config: FrozenConfigDict) -> dict[str, Any]:
    """Keyword arguments of `panel_of` for the judges of the stage `rl`."""
    section = config.rl
    return {
        "judges": config.reward.judges,
        "orders": section.orders,
        "ensemble": section.ensemble,
        "spread": section.ensemble_spread,
    }


def asks_held_out(config: FrozenConfigDict) -> bool:
    """Whether RL with the trained judge asks a held-out judge too."""
    section = config.rl
    if section.algorithm in ONLINE and section.compare == "group":
        return False  # win rates within a group average 1/2, whoever judges
    wanted = config.reward.held_out and section.held_out_every
    return bool(wanted and section.reward == "judge" and method_of(config).asks_held_out)


def rl_settings(config: FrozenConfigDict) -> RLConfig:
    """The sections `rl` and `guidance` as an `RLConfig`.

    Raises:
      ValueError: a field is out of range; named as in the config.
    """
    section, guidance = config.rl, rl_guidance(config)
    if section.algorithm in ONLINE:
        most = section.num_steps - (section.algorithm == "grpo")  # its last step is not random
        if section.trained_levels > most:
            raise ValueError(
                f"config.rl.trained_levels is {section.trained_levels}: at most {most} with "
                f"{section.num_steps} num_steps and the algorithm {section.algorithm!r}"
            )
    lora = None
    if section.lora.rank:
        lora = from_section(LoraConfig, section.lora, "config.rl.lora")
    return from_section(
        RLConfig,
        section,
        "config.rl",
        algorithm=method_of(config).algorithm,
        balance=balance_of(config),
        dimension_weights=tuple(float(section.dimension_weights[one.value]) for one in Dimension),
        guidance_scale=guidance["policy"].guidance_scale,
        **{f"{name}_true_cfg_scale": one.true_cfg_scale for name, one in guidance.items()},
        held_out_every=section.held_out_every if asks_held_out(config) else 0,
        jitter=from_section(Jitter, section.jitter, "config.rl.jitter"),
        optimizer=optimizer_of(config, "rl"),
        lora=lora,
        online=from_section(OnlineConfig, section, "config.rl"),
    )


def balance_of(config: FrozenConfigDict) -> Balance:
    """The fields of `config.rl` on how dimensions share an update.

    Raises:
      ValueError: a field is out of range; named as in the config.
    """
    section = config.rl
    return from_section(
        Balance,
        section,
        "config.rl",
        weights=section.balance,
        temperature=section.balance_temperature,
        floor=section.floor,
        gain=section.floor_gain,
        window=section.balance_window,
        project=section.project_conflicts,
    )


def check_balance(config: FrozenConfigDict) -> None:
    """Checks that the method has a loss per dimension to balance.

    Raises:
      ValueError: it has none, but a field about them is set.
    """
    off = {"balance": "mean", "project_conflicts": "none", "conflicts_every": 0}
    changed = [name for name, value in off.items() if config.rl[name] != value]
    if changed and method_of(config).make_step is not make_rl_step:
        raise ValueError(
            f"config.rl.{changed[0]} is {config.rl[changed[0]]!r}, but the method "
            f"config.rl.algorithm={config.rl.algorithm!r} has no loss per dimension: expected "
            f'"frozen", "dynamic" or a plug-in\'s Algorithm, or {changed[0]}={off[changed[0]]!r}'
        )


def check_surrogate(config: FrozenConfigDict) -> None:
    """Checks that the method has the anchor, and the gradient through the judge, that are set.

    Raises:
      ValueError: it has none, or not with this solver.
    """
    if config.rl.surrogate == "sparse" and config.models.solver != "euler":
        raise ValueError(
            "config.rl.surrogate is 'sparse', which weighs the steps by their shares of Euler's "
            f"sum, but config.models.solver is {config.models.solver!r}: 'euler' expected, or "
            "another surrogate"
        )
    if config.rl.anchor_weight and not method_of(config).anchors:
        raise ValueError(
            f"config.rl.anchor_weight is {config.rl.anchor_weight:g}, but the method "
            f"config.rl.algorithm={config.rl.algorithm!r} has no anchor: 0 expected"
        )
    off = {"surrogate": "single", "shared_noise": "none", "gradient_in_mask": False}
    for name, value in off.items():
        if config.rl[name] != value and method_of(config).make_step is not make_rl_step:
            raise ValueError(
                f"config.rl.{name} is {config.rl[name]!r}, but the method "
                f"config.rl.algorithm={config.rl.algorithm!r} has no gradient through the judge: "
                f"{value!r} expected"
            )


def check_references(config: FrozenConfigDict) -> None:
    """Checks that the method compares with pictures of a bank, if there is to be one.

    Raises:
      ValueError: it does not.
    """
    if config.rl.references == "rollout":
        return
    among = config.rl.algorithm in ONLINE and config.rl.compare == "group"
    if among or not method_of(config).reads_bank:
        why = " with config.rl.compare='group'" if among else ""
        raise ValueError(
            f"config.rl.references is {config.rl.references!r}, but the method "
            f"config.rl.algorithm={config.rl.algorithm!r}{why} compares with no picture of the "
            "reference: 'rollout' expected"
        )


def check_rollout_int8(config: FrozenConfigDict) -> None:
    """Checks that the method has rollouts in int8, if they are set.

    Raises:
      ValueError: it has none.
    """
    if config.rl.rollout_int8 and method_of(config).make_step is not make_rl_step:
        raise ValueError(
            "config.rl.rollout_int8 is True, but the method "
            f"config.rl.algorithm={config.rl.algorithm!r} has no rollout in int8: expected "
            '"frozen", "dynamic", "refl" or a plug-in\'s Algorithm, or rollout_int8=False'
        )


def method_of(config: FrozenConfigDict) -> Method:
    """The method named by `config.rl.algorithm`: one of the package's, or made by a plug-in.

    Raises:
      FileNotFoundError, ValueError: as `plugins.maker`, or the result is neither an `Algorithm` nor
        a `Method`.
    """
    name = config.rl.algorithm
    make = maker(config, "rl.algorithm")
    if make is None:
        return METHODS[name]
    made = make(config)
    if isinstance(made, Algorithm):
        return reward_feedback(made)
    if not isinstance(made, Method):
        raise ValueError(
            f"config.rl.algorithm is {name!r}: its make_algorithm(config) returns "
            f"{type(made).__name__}, not a onereward_jax.training.algorithm.Algorithm or "
            "onereward_jax.training.methods.Method"
        )
    return made


def read_by_method(config: FrozenConfigDict) -> dict[str, Effect]:
    """Stages that the stage `rl` reads because of its method, for `Stage.reads_also`."""
    try:
        method = method_of(config)
    except (FileNotFoundError, ValueError):  # a broken plug-in, which `check` of the stage reports
        return {"reward": Effect.OUTPUT}
    read = ("reward",) if method.asks else ()
    if method.batches == "pairs":
        read += ("candidates", "annotate")
    if config.rl.references == "bank":
        read += ("references",)
    return dict.fromkeys(read, Effect.OUTPUT)


def task_probabilities(config: FrozenConfigDict) -> dict[Task, float]:
    """p_k of the tasks with nonzero probability, normalised to sum 1.

    Those of the paper if the config has no section `rl`.

    Raises:
      ValueError: `config.rl.task_probabilities` has a negative value, or all are 0.
    """
    if "rl" not in config:
        return dict(SAMPLING_PROBABILITIES)
    section = config.rl.task_probabilities
    given = {task: float(section[task.value]) for task in Task}
    for task, value in given.items():
        if value < 0:
            raise ValueError(
                f"config.rl.task_probabilities.{task.value} is {value}: expected at least 0"
            )
    total = sum(given.values())
    if not total:
        raise ValueError("config.rl.task_probabilities: all are 0, so no task can be drawn")
    return {task: value / total for task, value in given.items() if value}
