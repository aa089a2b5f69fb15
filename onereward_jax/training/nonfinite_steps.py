"""Steps with a NaN or infinite loss or gradient: counted, and too many of them end the run.

`apply_gradients` refuses the update of such a step on the device; this is the host's side.
"""

from __future__ import annotations

import collections

import jax
import numpy as np

from onereward_jax.parallel import gather
from onereward_jax.training.metrics import Mean


class TooManyRefusedSteps(RuntimeError):
    """Loss or gradient were NaN or infinite more often than allowed."""


class RefusedSteps:
    """Remembers refused steps; asks the device about a step only when the next is under way."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._open: collections.deque[tuple[int, jax.Array, Mean]] = collections.deque()
        self._refused: list[tuple[int, jax.Array]] = []

    def add(self, step: int, samples: jax.Array, refused: Mean) -> None:
        """Note a step that is under way; asks about the one before.

        Args:
          step: its number.
          samples: of its batch.
          refused: as the step measures it.
        """
        self._open.append((step, samples, refused))
        while len(self._open) > 1:
            self._ask()

    def settle(self) -> None:
        """Ask about all that is left."""
        while self._open:
            self._ask()

    def too_many(self) -> bool:
        """Whether more were refused than are allowed."""
        return len(self._refused) > self._allowed

    def message(self, name: str) -> str:
        """What is said when there are too many; `name` is that of the stage."""
        batches = "; ".join(
            f"step {step}: samples {', '.join(map(str, np.ravel(gather(samples))))}"
            for step, samples in self._refused
        )
        return (
            f"{name}: loss or gradient was not finite in {len(self._refused)} steps, "
            f"{self._allowed} are allowed. {batches}"
        )

    def _ask(self) -> None:
        step, samples, refused = self._open.popleft()
        if float(refused.total) > 0:
            self._refused.append((step, samples))
