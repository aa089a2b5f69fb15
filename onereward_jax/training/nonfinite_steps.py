"""Steps with a NaN or infinite loss or gradient: counted, and too many of them end the run.

`apply_gradients` refuses the update of such a step on the device; this is the host's side.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.parallel import gather, is_writer
from onereward_jax.training.metrics import Mean


class TooManyRefusedSteps(RuntimeError):
    """Loss or gradient were NaN or infinite more often than allowed."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """What helps to find out why steps were refused.

    Attributes:
      learning_rate: the field of the config, as "config.rl.optimizer.learning_rate".
      sample: "index" of a sample -> what it is, as JSON; by default the index itself.
    """

    learning_rate: str = "the learning rate"
    sample: Callable[[int], Any] = int


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

    def report(self, path: Path, name: str, advice: Advice) -> TooManyRefusedSteps:
        """Writes which samples the refused steps had; all processes call it.

        Args:
          path: of the JSON file, written by process 0: of each refused step its samples.
          name: of the stage.
          advice: see `Advice`.

        Returns:
          What to raise.
        """
        batches = [(step, np.ravel(gather(samples)).tolist()) for step, samples in self._refused]
        if is_writer():
            content = [
                {"step": step, "samples": [advice.sample(index) for index in batch]}
                for step, batch in batches
            ]
            with atomic_file(path) as draft:
                draft.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
        steps = ", ".join(str(step) for step, _ in batches)
        return TooManyRefusedSteps(
            f"{name}: loss or gradient was NaN or infinite in {len(batches)} steps ({steps}), "
            f"{self._allowed} are allowed. These steps changed no weight, and the state is saved. "
            f"Most often {advice.learning_rate} is too high: start again with a lower one. "
            f"{path} names the samples of these steps; one that is in all of them may be damaged"
        )

    def _ask(self) -> None:
        step, samples, refused = self._open.popleft()
        if float(refused.total) > 0:
            self._refused.append((step, samples))
