"""`config.rl.balance` = "accuracy": dimensions weigh as much as the judge is right in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.stages.make_reward import needs_judge
from onereward_jax.stages.rl_settings import task_probabilities
from onereward_jax.stages.train_judge import ACCURACY
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.rl_config import RLConfig


def check_accuracy_balance(config: FrozenConfigDict) -> None:
    """Raises ValueError if there is to be no judge whose accuracy could be known."""
    if config.rl.balance == "accuracy" and not needs_judge(config):
        raise ValueError(
            "config.rl.balance is 'accuracy', the judge's on held-out pairs, but config.rl.reward "
            f"is {config.rl.reward!r}: 'judge' expected, or another balance"
        )


def with_accuracy(settings: RLConfig, config: FrozenConfigDict, reward: Path) -> RLConfig:
    """The settings with the judge's accuracy, if `config.rl.balance` is "accuracy".

    Args:
      settings, config: of the run.
      reward: folder of the stage `reward`.

    Raises:
      ValueError: for a trained task, no held-out pair tells how good the judge is in a dimension,
        or it is right in at most half of them in all dimensions.
    """
    if settings.balance.weights != "accuracy":
        return settings
    path = reward / ACCURACY
    known = {(row["task"], row["dimension"]): row["accuracy"] for row in read_json(path)["rows"]}
    trained = task_probabilities(config)
    for task in trained:
        for dimension in DIMENSIONS[task]:
            if (task.value, dimension.value) not in known:
                raise ValueError(
                    f"config.rl.balance is 'accuracy', but {path} has none for {task.title}, "
                    f"{dimension.title}: no held-out pair. Larger config.candidates.test, or "
                    "another balance"
                )
        if max(known[task.value, dimension.value] for dimension in DIMENSIONS[task]) <= 0.5:
            raise ValueError(
                f"config.rl.balance is 'accuracy', but by {path} the judge is right in at most "
                f"half of the pairs of {task.title} in every dimension: it teaches nothing. Set "
                f"config.rl.task_probabilities.{task.value}=0, or another balance"
            )
    accuracy = tuple(
        tuple(known.get((task.value, dimension.value), 1.0) for dimension in DIMENSIONS[task])
        for task in TASKS
    )
    return dataclasses.replace(
        settings, balance=dataclasses.replace(settings.balance, accuracy=accuracy)
    )
