"""Counts steps with a NaN or infinite loss or gradient; too many of them end the run.

`apply_gradients` skips (refuses) the update of such a step on the device. This module is the host
side.
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
from onereward_jax.common.listing import first_of
from onereward_jax.parallel import gather, is_writer
from onereward_jax.training.metrics import Mean


class TooManyRefusedSteps(RuntimeError):
    """The loss or a gradient was NaN or infinite in more steps than allowed."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """Information for the error message about refused steps.

    Attributes:
      learning_rate: its config field, e.g. "config.rl.optimizer.learning_rate".
      sample: "index" of a sample -> JSON description of it; default: the index itself.
    """

    learning_rate: str = "the learning rate"
    sample: Callable[[int], Any] = int


class RefusedSteps:
    """Records refused steps. Reads the result of a step only after the next one is dispatched."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._open: collections.deque[tuple[int, jax.Array, Mean]] = collections.deque()
        self._refused: list[tuple[int, jax.Array]] = []

    def add(self, step: int, samples: jax.Array, refused: Mean) -> None:
        """Adds a dispatched step; reads the result of the previous one.

        Args:
          step: number of the step.
          samples: sample indices of its batch.
          refused: the metric "refused" of the step.
        """
        self._open.append((step, samples, refused))
        while len(self._open) > 1:
            self._ask()

    def settle(self) -> None:
        """Reads the results of all remaining steps."""
        while self._open:
            self._ask()

    def too_many(self) -> bool:
        """Whether more steps were refused than allowed."""
        return len(self._refused) > self._allowed

    def report(self, path: Path, name: str, advice: Advice) -> TooManyRefusedSteps:
        """Writes the samples of the refused steps to a file; all processes must call it.

        Args:
          path: path of the JSON file, written by process 0.
          name: name of the stage.
          advice: see `Advice`.

        Returns:
          The exception to raise.
        """
        batches = [(step, np.ravel(gather(samples)).tolist()) for step, samples in self._refused]
        if is_writer():
            content = [
                {"step": step, "samples": [advice.sample(index) for index in batch]}
                for step, batch in batches
            ]
            with atomic_file(path) as draft:
                draft.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
        steps = ", ".join(first_of([str(step) for step, _ in batches]))
        return TooManyRefusedSteps(
            f"{name}: loss or gradient was NaN or infinite in {len(batches)} steps ({steps}), "
            f"{self._allowed} are allowed. These steps did not change the weights; the state is "
            f"saved. Usually {advice.learning_rate} is too high: start again with a lower one. "
            f"{path} lists the samples of these steps; a sample in all of them may be corrupt"
        )

    def _ask(self) -> None:
        step, samples, refused = self._open.popleft()
        if float(refused.total) > 0:
            self._refused.append((step, samples))
