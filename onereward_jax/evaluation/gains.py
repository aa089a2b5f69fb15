"""Where an editor gained on its base: dimension by dimension, as oracle and judge see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from onereward_jax.evaluation.gsb import CONFIDENCE, RESAMPLES
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

ByDimension = Mapping[Dimension, float]


@dataclasses.dataclass(frozen=True)
class Gain:
    """One dimension of one task over `triplets` held-out triplets.

    `preference`: the judge's mean probability that the editor's result is the better one, asked in
    both orders. `base`, `policy`: mean scores by the oracle, in [0, 1]; `low`, `high`: 95 %
    bootstrap interval of their difference. The four are None where there is no oracle.
    """

    triplets: int
    preference: float
    base: float | None = None
    policy: float | None = None
    low: float | None = None
    high: float | None = None


def gains(
    tasks: Mapping[int, Task],
    preferences: Mapping[int, ByDimension],
    scores: Mapping[int, tuple[ByDimension, ByDimension]],
    seed: int = 0,
) -> dict[tuple[Task, Dimension], Gain]:
    """Means over the triplets of each task.

    Args:
      tasks: of the triplets.
      preferences: the judge's, per triplet.
      scores: the oracle's of policy and base, per triplet; empty where there is none.
      seed: of the resampling.
    """
    found = {}
    for task in dict.fromkeys(tasks.values()):
        rows = [row for row, other in tasks.items() if other is task]
        for dimension in DIMENSIONS[task]:
            preference = float(np.mean([preferences[row][dimension] for row in rows]))
            rated = {}
            if scores:
                pairs = np.array([[one[dimension] for one in scores[row]] for row in rows])
                policy, base = pairs.mean(0)
                draws = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
                differences = (pairs[:, 0] - pairs[:, 1])[draws].mean(1)
                tail = (1 - CONFIDENCE) / 2
                low, high = np.quantile(differences, [tail, 1 - tail])
                rated = {"base": base, "policy": policy, "low": low, "high": high}
            found[task, dimension] = Gain(
                len(rows), preference, **{name: float(value) for name, value in rated.items()}
            )
    return found
