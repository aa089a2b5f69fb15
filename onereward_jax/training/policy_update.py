"""From the gradients of a method to the next state of the policy, and all metrics of the step."""

from __future__ import annotations

import optax
from jaxtyping import Array, Float32, PyTree

from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.held_out_judge import follow_gap
from onereward_jax.training.metrics import Metrics
from onereward_jax.training.rl_balance import follow_rewards
from onereward_jax.training.rl_config import Frozen, RLConfig
from onereward_jax.training.rl_weights import distance_metric
from onereward_jax.training.train_state import TrainState


def update_policy(
    config: RLConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: Frozen,
    gradients: PyTree,
    loss: Float32[Array, ""],
    metrics: Metrics,
) -> tuple[TrainState, Metrics]:
    """Updates weights and average, and what the state follows: the gap, and running rewards.

    Args:
      config, optimizer: static.
      state, frozen: before the step.
      gradients, loss, metrics: summed over the batch. With a held-out judge or running rewards
        (`config.balance`), metrics have what they follow.
    """
    metrics = metrics | distance_metric(config, state, frozen)
    state, stopped, gap = follow_gap(config, state, metrics)
    decay = config.algorithm.decay(config.ema_decay, state.step)
    following, measured = apply_gradients(
        state, loss, gradients, optimizer, metrics | gap, decay, stopped
    )
    if config.balance.follows_rewards:
        squares = measured.pop("squared_reward")
        running = follow_rewards(
            state.running_rewards, measured["reward"], squares, config.balance.window
        )
        following = following._replace(running_rewards=running)
    return following, measured
