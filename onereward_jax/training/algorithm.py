"""What Algorithms 1 and 2 differ in, and what an algorithm of one's own may change.

Both compare the policy's image x_θ with the reference's x_ref and minimise Eq. 5. They differ in
the weights that make x_ref: those that the policy began with, or the policy's moving average.

A plug-in of `config.rl.algorithm` has `make_algorithm(config)`, which returns an `Algorithm` or an
object of a subclass that overrides `loss` or `decay`.
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
    """Where x_ref comes from, what a comparison costs, and how the policy is averaged.

    The methods run inside the jitted step.

    Attributes:
      reference: "first": the weights that the policy began with. "average": its moving average, so
        that one transformer fewer is held.

    Raises:
      ValueError: there is no such reference.
    """

    reference: Reference

    def __post_init__(self) -> None:
        if self.reference not in get_args(Reference):
            known = " or ".join(map(repr, get_args(Reference)))
            raise ValueError(f"reference is {self.reference!r}: {known} expected")

    def loss(
        self, log_yes: Float32[Array, "b e"], log_no: Float32[Array, "b e"], upper_bound: float
    ) -> Float32[Array, "b e"]:
        """Eq. 5, max(0, λ - P("Yes")). Its slope in P is 0 from P = λ on (at the kink too).

        Args:
          log_yes, log_no: log P("Yes") and log P("No") to "is x_θ better than x_ref?", for each
            sample and dimension; anything where a task has no such dimension.
          upper_bound: λ.
        """
        return jax.nn.relu(upper_bound - jnp.exp(log_yes))

    def decay(self, decay: float, step: Int[Array, ""]) -> float | Float[Array, ""]:
        """τ of the moving average π_ema ← τ π_ema + (1 - τ) π_θ after an update.

        Args:
          decay: `config.rl.ema_decay`.
          step: of the update, from 0.
        """
        return decay


FROZEN = Algorithm("first")
"""Algorithm 1."""

DYNAMIC = Algorithm("average")
"""Algorithm 2."""

ALGORITHMS = {"frozen": FROZEN, "dynamic": DYNAMIC}
"""Those of the paper, by their names in `config.rl.algorithm`."""
