"""Ends RL when the gap between the judge's reward and the held-out judge's opens.

`config.rl.stop_at_gap` stops the run, and keeps the policy as it was before the update that
followed the last measurement. A lower learning rate instead would go on in the same direction, only
slower: the judge's reward has stopped telling what the held-out judge sees.
"""

from __future__ import annotations

import functools

from onereward_jax.chain.stage import StageContext
from onereward_jax.stages.judge_parts import HELD_OUT, judge_names
from onereward_jax.stages.rl_settings import asks_held_out, method_of
from onereward_jax.training.held_out_judge import is_open, smoothed
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.train_loop import EarlyEnd
from onereward_jax.training.train_state import TrainState


def check_held_out(context: StageContext) -> None:
    """Checks what needs the trained judges.

    Raises:
      ValueError: both orders or several judges of a reward that is a plug-in; or the stage `reward`
        is not run and a judge does not exist.
    """
    config = context.config
    if not method_of(config).asks:
        return
    if config.rl.reward != "judge":
        if config.rl.orders != "one":
            raise ValueError(
                f"config.rl.orders is {config.rl.orders!r} and config.rl.reward is "
                f'{config.rl.reward!r}: a reward of your own is asked in one order, "one" expected'
            )
        return
    if "reward" in config.stages:
        return
    for name in [
        *judge_names(config.reward.judges),
        *([HELD_OUT] if asks_held_out(config) else []),
    ]:
        if not (context.output("reward") / name).is_dir():
            field = "held_out" if name == HELD_OUT else "judges"
            raise ValueError(
                f"config.reward.{field} is {config.reward[field]}, but there is no "
                f'{context.output("reward") / name}: add "reward" to config.stages'
            )


def early_end(settings: RLConfig) -> EarlyEnd | None:
    """For the training loop; None if nothing stops at the gap."""
    if not settings.stop_at_gap:
        return None
    return EarlyEnd(settings.held_out_every, functools.partial(why_stopped, settings))


def why_stopped(settings: RLConfig, state: TrainState) -> str:
    """One sentence if RL has stopped at the gap; else ""."""
    if not settings.stop_at_gap or not bool(is_open(settings, state.gap)):
        return ""
    return (
        f"stopped at step {int(state.step)}: the judge's reward is "
        f"{float(smoothed(state.gap)):.3f} above the held-out judge's, more than "
        f"config.rl.stop_at_gap, {settings.stop_at_gap:g}"
    )
