"""A custom RL algorithm: a logistic loss, and a reference that is updated periodically.

Eq. 5 has zero gradient above λ. The Bradley-Terry loss used here, log(1 + No / Yes), has a gradient
everywhere; λ is not used. The reference is neither the initial policy nor an average: every
`RENEW_EVERY` updates it is set to the current policy.

    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/logistic \
      --config.rl.algorithm=examples/algorithm.py --config.evaluate.weights=policy
"""

import jax
import jax.numpy as jnp

from onereward_jax.training.algorithm import Algorithm

RENEW_EVERY = 50


class Logistic(Algorithm):
    """Both methods run inside the jitted step."""

    def loss(self, log_yes, log_no, upper_bound):
        """The loss of each sample and dimension, [b, e]."""
        return jax.nn.softplus(log_no - log_yes)

    def decay(self, decay, step):
        """1 keeps the average, which is the reference; 0 sets it to the current policy."""
        return jnp.where((step + 1) % RENEW_EVERY == 0, 0.0, 1.0)


def make_algorithm(config):
    """Returns the algorithm; its reference is the policy's average."""
    return Logistic(reference="average")
