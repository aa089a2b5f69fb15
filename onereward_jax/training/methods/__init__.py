"""Methods of training the policy."""

from onereward_jax.training.methods.method import Method
from onereward_jax.training.methods.reward_feedback import reward_feedback
from onereward_jax.training.methods.table import METHODS

__all__ = ["METHODS", "Method", "reward_feedback"]
