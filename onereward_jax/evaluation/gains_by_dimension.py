"""Gain of an editor over its base per dimension, by oracle and judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from onereward_jax.evaluation.gsb import CONFIDENCE, RESAMPLES
from onereward_jax.evaluation.intervals import FEW
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

ByDimension = Mapping[Dimension, float]


@dataclasses.dataclass(frozen=True)
class Gain:
    """The gain in one dimension of one task, over `triplets` held-out triplets.

    `preference`: mean probability that the policy's result is better, by the judge used in RL,
    averaged over both orders; `held_out`: the same by a held-out judge, None without one. `base`,
    `policy`: mean oracle scores in [0, 1], None without an oracle; `low`, `high`: 95 % bootstrap
    interval of their difference, None for fewer than `FEW` triplets.
    """

    triplets: int
    preference: float
    base: float | None = None
    policy: float | None = None
    low: float | None = None
    high: float | None = None
    held_out: float | None = None

    @property
    def few(self) -> bool:
        """Whether there are too few triplets for a conclusion."""
        return self.triplets < FEW


def gains(
    tasks: Mapping[int, Task],
    preferences: Mapping[int, ByDimension],
    scores: Mapping[int, tuple[ByDimension, ByDimension]],
    seed: int = 0,
    held_out: Mapping[int, ByDimension] | None = None,
) -> dict[tuple[Task, Dimension], Gain]:
    """Means over the triplets of each task.

    Args:
      tasks: task of each triplet.
      preferences: preferences of the judge used in RL, per triplet.
      scores: oracle scores of policy and base, per triplet; empty without an oracle.
      seed: seed of the bootstrap.
      held_out: preferences of a held-out judge; None without one.
    """
    found = {}
    for task in dict.fromkeys(tasks.values()):
        rows = [row for row, other in tasks.items() if other is task]
        for dimension in DIMENSIONS[task]:
            preference = float(np.mean([preferences[row][dimension] for row in rows]))
            rated = {}
            if held_out:
                rated["held_out"] = np.mean([held_out[row][dimension] for row in rows])
            if scores:
                pairs = np.array([[one[dimension] for one in scores[row]] for row in rows])
                rated["policy"], rated["base"] = pairs.mean(0)
            if scores and len(rows) >= FEW:
                draws = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
                differences = (pairs[:, 0] - pairs[:, 1])[draws].mean(1)
                tail = (1 - CONFIDENCE) / 2
                rated["low"], rated["high"] = np.quantile(differences, [tail, 1 - tail])
            found[task, dimension] = Gain(
                len(rows), preference, **{name: float(value) for name, value in rated.items()}
            )
    return found
