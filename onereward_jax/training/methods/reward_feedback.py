"""Reward feedback learning, Algorithms 1 and 2 of the paper, as a `Method`; see `rl_step`."""

from __future__ import annotations

from onereward_jax.training.algorithm import Algorithm
from onereward_jax.training.methods.method import Method
from onereward_jax.training.model_flops import rl_model_flops
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.rl_step import make_rl_step
from onereward_jax.training.rl_surrogate import active_steps, policy_steps


def reward_feedback(algorithm: Algorithm) -> Method:
    """The method with the reference, loss and decay of `algorithm`."""
    return Method(
        algorithm,
        make_rl_step,
        rl_model_flops,
        _passes,
        reads_bank=True,
        asks_held_out=True,
        anchors=True,
        loop_trips=policy_steps,
    )


def _passes(config: RLConfig) -> float:
    """Both rollouts, and the predictions with their backward passes."""
    predictions = active_steps(config) * (2 if config.lora else 3)
    reference = config.num_steps if config.references == "rollout" else 0
    return reference + policy_steps(config) + predictions
