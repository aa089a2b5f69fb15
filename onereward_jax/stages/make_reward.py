"""Makes the reward named by `config.rl.reward`; see `reward.reward_interface`."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.chain.plugins import maker
from onereward_jax.chain.stage import StageContext
from onereward_jax.reward.judge_loader import RewardModel, load_reward_params, read_reward_model
from onereward_jax.reward.reward_interface import Reward, Size
from onereward_jax.stages.rl_settings import judge_options, method_of

JUDGE = "judge"
"""The name of the trained judge."""

NO_REWARD = Reward(scorer=lambda size: None, params=None)
"""For methods that ask none."""


def trained_judge(config: FrozenConfigDict, mesh: Mesh, workdir: Path) -> Reward:
    """The judge trained by the stage `reward`, with its own query template."""
    folder = workdir / "reward" / "judge"

    @functools.cache
    def judge(size: Size) -> RewardModel:
        return read_reward_model(folder, size, **judge_options(config))

    any_size = (config.data.image_size, config.data.image_size)  # the weights do not depend on it
    return Reward(
        scorer=lambda size: judge(size).scorer,
        params=load_reward_params(folder, judge(any_size).scorer, mesh, int8=config.rl.judge_int8),
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
        return trained_judge(config, mesh, context.workdir)
    if "workdir" in inspect.signature(make).parameters:
        make = functools.partial(make, workdir=context.workdir)
    reward = make(config, mesh)
    if not isinstance(reward, Reward):
        raise ValueError(
            f"config.rl.reward is {config.rl.reward!r}: its make_reward(config, mesh) returns "
            f"{type(reward).__name__}, not a onereward_jax.reward.Reward"
        )
    return reward
