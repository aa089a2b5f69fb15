"""A held-out judge beside RL: its reward, and the gap to the judge that the policy learns from.

Both judges see the same pictures; the held-out one gives no gradient. As long as the policy
improves, both rewards rise. When only the trained-on judge's rises, the policy has found what
only that judge likes: the reward model is over-optimised (Gao et al., arXiv 2210.10760). The gap
is the mean of reward - held-out reward over pairs.

The gap is smoothed over measurements: with d = 1 - 1 / `WINDOW`, total ← d total + gap and
weight ← d weight + 1; the smoothed gap is total / weight. Both numbers are part of the train state,
so that a resumed run stops at the same step.

Shapes: b samples, e dimensions (padded).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from onereward_jax.training.metrics import Mean, Metrics, by_task, once
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.train_state import TrainState

WINDOW = 20
"""Measurements over which the gap is smoothed: the time constant of its moving average."""

ENOUGH = 10
"""Measurements before the run may stop: earlier, the gap is mostly noise."""

REWARD, GAP, SMOOTHED = "held_out_reward", "held_out_gap", "held_out_gap_smoothed"
"""Names of the metrics."""

Gap = Float32[Array, "2"]
"""The smoothed gap: total and weight."""


def is_measured(config: RLConfig, step: Int32[Array, ""]) -> Bool[Array, ""]:
    """Whether the held-out judge is asked in the update that follows `step` updates."""
    return (step + 1) % config.held_out_every == 0


def held_out_rewards(
    config: RLConfig,
    ask: Callable[[], Float32[Array, "b e"]],
    rewards: Float32[Array, "b e"],
    cells: tuple[Int32[Array, "b"], Bool[Array, "b e"]],
    step: Int32[Array, ""],
) -> Metrics:
    """The held-out judge's rewards, and the gap, as tables; empty in steps that do not measure.

    Args:
      config: says how often it is asked.
      ask: its rewards of what the trained-on judge has seen, without gradient.
      rewards: those of the trained-on judge.
      cells: task and asked dimensions of each sample.
      step: number of updates before this one.
    """
    measured = is_measured(config, step)
    found = jax.lax.cond(measured, ask, lambda: jnp.zeros(rewards.shape, jnp.float32))
    task, asked = cells
    return {
        REWARD: by_task(found, task, asked & measured),
        GAP: by_task(rewards - found, task, asked & measured),
    }


def follow_gap(
    config: RLConfig, state: TrainState, metrics: Metrics
) -> tuple[TrainState, Bool[Array, ""] | None, Metrics]:
    """The state with the smoothed gap after this step, whether RL stops at it, and its metric.

    Without `config.stop_at_gap` the state as it is, None, and nothing.
    """
    if not config.stop_at_gap:
        return state, None, {}
    gap = next_gap(config, state.gap, metrics[GAP])
    return state._replace(gap=gap), is_open(config, gap), {SMOOTHED: once(smoothed(gap))}


def next_gap(config: RLConfig, gap: Gap, measured: Mean) -> Gap:
    """The smoothed gap after a step with this metric `GAP`; once it has opened, it stays."""
    count = jnp.sum(measured.count)
    found = jnp.sum(measured.total) / jnp.where(count > 0, count, 1.0)
    following = gap * (1.0 - 1.0 / WINDOW) + jnp.stack([found, jnp.float32(1.0)])
    counts = (count > 0) & jnp.isfinite(found) & ~is_open(config, gap)
    return jnp.where(counts, following, gap)


def smoothed(gap: Gap) -> Float32[Array, ""]:
    """The smoothed gap; 0 before the first measurement."""
    return gap[0] / jnp.where(gap[1] > 0, gap[1], 1.0)


def is_open(config: RLConfig, gap: Gap) -> Bool[Array, ""]:
    """Whether the gap has opened: enough measurements, and their mean is above `stop_at_gap`."""
    decay = 1.0 - 1.0 / WINDOW
    enough = (1.0 - decay**ENOUGH) / (1.0 - decay) - 1e-3  # the weight of so many measurements
    return (gap[1] >= enough) & (smoothed(gap) > config.stop_at_gap)
