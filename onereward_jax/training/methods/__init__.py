"""Methods of training the policy."""

from onereward_jax.training.methods.known_methods import METHODS
from onereward_jax.training.methods.method import Method
from onereward_jax.training.methods.reward_feedback import reward_feedback

__all__ = ["METHODS", "Method", "reward_feedback"]
