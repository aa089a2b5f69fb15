"""An algorithm of the update of one's own: a logistic loss, and a reference that is renewed.

Eq. 5 teaches nothing more above λ. The loss here is that of Bradley and Terry, log(1 + No / Yes),
which never ends; λ is not used. The reference is neither the first policy nor an average: every
`RENEW_EVERY` updates it becomes the policy of that moment.

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
        """Of each sample and dimension, [b, e]."""
        return jax.nn.softplus(log_no - log_yes)

    def decay(self, decay, step):
        """1 keeps the average, which is the reference; 0 makes it the policy."""
        return jnp.where((step + 1) % RENEW_EVERY == 0, 0.0, 1.0)


def make_algorithm(config):
    """The algorithm; the policy's average is its reference."""
    return Logistic(reference="average")
