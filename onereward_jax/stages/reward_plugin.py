"""The reward of the stage `rl` by its name, `config.rl.reward`; see `reward.interface`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.reward.interface import Reward, Size
from onereward_jax.reward.load_reward_model import (
    RewardModel,
    load_reward_params,
    read_reward_model,
)
from onereward_jax.stages.settings import judge_options
from onereward_jax.stages.stage import StageContext
from onereward_jax.storage import local_path

JUDGE = "judge"
"""The name of the trained judge."""

FIELD = "config.rl.reward"


def trained_judge(config: FrozenConfigDict, mesh: Mesh, workdir: Path) -> Reward:
    """The judge that the stage `reward` has trained, asked in the words it was trained with."""
    folder = workdir / "reward" / "judge"

    @functools.cache
    def judge(size: Size) -> RewardModel:
        return read_reward_model(folder, size, **judge_options(config))

    any_size = (config.data.image_size, config.data.image_size)  # weights do not depend on it
    return Reward(
        scorer=lambda size: judge(size).scorer,
        params=load_reward_params(folder, judge(any_size).scorer, mesh, int8=config.rl.judge_int8),
        queries=lambda size: judge(size).queries,
    )


PACKAGED: dict[str, Callable[..., Reward]] = {JUDGE: trained_judge}
"""Name -> its `make`."""


def needs_judge(config: FrozenConfigDict) -> bool:
    """Whether the policy learns through the trained judge."""
    return config.rl.reward == JUDGE


def find_reward(name: str) -> Callable[..., Reward]:
    """The `make` of the reward of that name.

    Args:
      name: of a packaged reward, of a module, or the path of a Python file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no such module, or it has no function `make`.
    """
    if name in PACKAGED:
        return PACKAGED[name]
    make = getattr(_module(name), "make", None)
    if not callable(make):
        raise ValueError(f"{FIELD} is {name!r}: it has no function make(config, mesh)")
    return make


def make_reward(context: StageContext) -> Reward:
    """The reward of this run.

    Raises:
      FileNotFoundError, ValueError: as `find_reward`, or it makes something else.
    """
    name = context.config.rl.reward
    make = find_reward(name)
    if "workdir" in inspect.signature(make).parameters:
        make = functools.partial(make, workdir=context.workdir)
    reward = make(context.config, context.mesh)
    if not isinstance(reward, Reward):
        raise ValueError(
            f"{FIELD} is {name!r}: its make(config, mesh) gives {type(reward).__name__}, not "
            "onereward_jax.reward.Reward"
        )
    return reward


def _module(name: str) -> ModuleType:
    if name.endswith(".py"):
        path = local_path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{FIELD} is {name!r}: there is no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        known = ", ".join(PACKAGED)
        raise ValueError(
            f"{FIELD} is {name!r}: neither {known} nor a module or a .py file that there is"
        ) from error
