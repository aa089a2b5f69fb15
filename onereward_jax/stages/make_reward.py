"""Makes the reward named by `config.rl.reward`; see `reward.reward_interface`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.chain.plugins import maker
from onereward_jax.chain.stage import StageContext
from onereward_jax.reward.judge_loader import RewardModel, read_reward_model
from onereward_jax.reward.judge_panel import panel_of
from onereward_jax.reward.reward_interface import Reward, Size
from onereward_jax.reward.stacked_judges import load_judges
from onereward_jax.stages.judge_parts import HELD_OUT, judge_names
from onereward_jax.stages.rl_settings import (
    asks_held_out,
    judge_options,
    method_of,
    panel_options,
)

JUDGE = "judge"
"""The name of the trained judge."""

NO_REWARD = Reward(scorer=lambda size: None, params=None)
"""For methods that ask none."""


def trained_judge(config: FrozenConfigDict, mesh: Mesh, folder: Path) -> Reward:
    """The judges in the output folder of the stage `reward`, with their own query template."""
    names = judge_names(config.reward.judges)
    return _reward(config, mesh, [folder / name for name in names])


def held_out_judge(config: FrozenConfigDict, mesh: Mesh, folder: Path) -> Reward | None:
    """The held-out judge of RL, asked in the same orders as the trained one; None without one."""
    if not asks_held_out(config):
        return None
    return _reward(config, mesh, [folder / HELD_OUT])


def _reward(config: FrozenConfigDict, mesh: Mesh, folders: Sequence[Path]) -> Reward:
    options = panel_options(config) | {"judges": len(folders)}

    @functools.cache
    def judge(size: Size) -> RewardModel:
        return read_reward_model(folders[0], size, **judge_options(config))

    any_size = (config.data.image_size, config.data.image_size)  # the weights do not depend on it
    return Reward(
        scorer=lambda size: panel_of(judge(size).scorer, **options),
        params=load_judges(folders, judge(any_size).scorer, mesh, int8=config.rl.judge_int8),
        queries=lambda size: judge(size).queries,
    )


def needs_judge(config: FrozenConfigDict) -> bool:
    """Whether RL asks the trained judge."""
    return config.rl.reward == JUDGE and method_of(config).asks


def reward_of(context: StageContext) -> Reward:
    """The reward of this run: the trained judge, or one made by a plug-in.

    Raises:
      FileNotFoundError, ValueError: as `plugins.maker`, or the result is not a `Reward`.
    """
    config, mesh = context.config, context.mesh
    make = maker(config, "rl.reward")
    if make is None:
        return trained_judge(config, mesh, context.output("reward"))
    if "workdir" in inspect.signature(make).parameters:
        make = functools.partial(make, workdir=context.workdir)
    reward = make(config, mesh)
    if not isinstance(reward, Reward):
        raise ValueError(
            f"config.rl.reward is {config.rl.reward!r}: its make_reward(config, mesh) returns "
            f"{type(reward).__name__}, not a onereward_jax.reward.Reward"
        )
    return reward
