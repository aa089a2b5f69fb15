"""The RL algorithm: Algorithm 1 or 2 of the paper, or a custom one.

Both compare the policy's image x_θ with the reference's image x_ref and minimise Eq. 5. They differ
in the weights that generate x_ref: the initial policy, or the policy's moving average.

A plug-in named in `config.rl.algorithm` has a function `make_algorithm(config)`. It returns an
`Algorithm` or an instance of a subclass that overrides `loss` or `decay`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

Reference = Literal["first", "average"]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """The source of x_ref, the loss of a comparison, and the decay of the moving average.

    The methods run inside the jitted step.

    Attributes:
      reference: "first": the initial weights of the policy. "average": its moving average; needs
        one transformer less in memory.

    Raises:
      ValueError: there is no such reference.
    """

    reference: Reference

    def __post_init__(self) -> None:
        if self.reference not in get_args(Reference):
            known = " or ".join(map(repr, get_args(Reference)))
            raise ValueError(f"reference is {self.reference!r}: expected {known}")

    def loss(
        self, log_yes: Float32[Array, "b e"], log_no: Float32[Array, "b e"], upper_bound: float
    ) -> Float32[Array, "b e"]:
        """Eq. 5, max(0, λ - P("Yes")). The gradient is 0 for P >= λ.

        Args:
          log_yes, log_no: log P("Yes") and log P("No") for "is x_θ better than x_ref?", for each
            sample and dimension; arbitrary at padded dimensions.
          upper_bound: λ.
        """
        return jax.nn.relu(upper_bound - jnp.exp(log_yes))

    def decay(self, decay: float, step: Int[Array, ""]) -> float | Float[Array, ""]:
        """τ of the moving average π_ema ← τ π_ema + (1 - τ) π_θ after an update.

        Args:
          decay: `config.rl.ema_decay`.
          step: index of the update, from 0.
        """
        return decay


FROZEN = Algorithm("first")
"""Algorithm 1."""

DYNAMIC = Algorithm("average")
"""Algorithm 2."""
