"""Good / Same / Bad of one editor against another, per task (Figure 7 of the paper)."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onereward_jax.evaluation.intervals import FEW
from onereward_jax.tasks import Task

RESAMPLES = 2000
CONFIDENCE = 0.95


class Verdict(enum.StrEnum):
    """How the first of two results compares with the second."""

    GOOD = "good"
    SAME = "same"
    BAD = "bad"


def verdict_of(lead: float, margin: float) -> Verdict:
    """Same if |lead| <= margin, else Good or Bad by its sign."""
    if abs(lead) <= margin:
        return Verdict.SAME
    return Verdict.GOOD if lead > 0 else Verdict.BAD


PAPER_GSB: tuple[tuple[float, float, float], ...] = (
    (32.3, 48.3, 19.3),
    (68.0, 23.6, 8.4),
    (54.2, 38.4, 7.4),
    (66.1, 27.9, 6.1),
)
"""Figure 7: % good, same, bad of the RL model against its base; fill is the first and weakest."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One verdict on the two editors' results for a triplet."""

    triplet_id: str
    task: Task
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class GoodSameBad:
    """Counts of verdicts, and Good − Bad as a fraction in [-1, 1] with its 95 % interval."""

    good: int
    same: int
    bad: int
    difference: float
    low: float
    high: float
    triplets: int

    @property
    def few(self) -> bool:
        """Whether there are too few triplets for a conclusion."""
        return self.triplets < FEW

    @property
    def total(self) -> int:
        """Number of verdicts."""
        return self.good + self.same + self.bad

    @property
    def shares(self) -> tuple[float, float, float]:
        """Good, same, bad in [0, 1]; they sum to 1."""
        return self.good / self.total, self.same / self.total, self.bad / self.total


def good_same_bad(comparisons: Iterable[Comparison], seed: int = 0) -> dict[Task, GoodSameBad]:
    """Counts and 95 % bootstrap interval for each task.

    Triplets are resampled, not verdicts, because multiple verdicts on one triplet (seeds, raters)
    are not independent. Percentile interval over 2,000 resamples. For fewer than `FEW` triplets, or
    if all agree, one good and one bad triplet are added before resampling, as in Bonett and Price
    (2012) for differences of paired proportions, so that the interval has a width.
    """
    by_task: dict[Task, dict[str, list[Verdict]]] = {}
    for one in comparisons:
        triplets = by_task.setdefault(one.task, collections.defaultdict(list))
        triplets[one.triplet_id].append(one.verdict)
    return {task: _count(triplets, seed) for task, triplets in by_task.items()}


def _count(triplets: Mapping[str, Sequence[Verdict]], seed: int) -> GoodSameBad:
    order = tuple(Verdict)
    counts = np.array([[kept.count(v) for v in order] for kept in triplets.values()])
    good, same, bad = (int(n) for n in counts.sum(0))

    sampled, alike = counts, len(np.unique(counts / counts.sum(1, keepdims=True), axis=0)) == 1
    if len(counts) < FEW or alike:
        sampled = np.concatenate([counts, [[1, 0, 0], [0, 0, 1]]])
    draws = np.random.default_rng(seed).integers(0, len(sampled), (RESAMPLES, len(sampled)))
    lead = (sampled[:, 0] - sampled[:, 2])[draws].sum(1)
    resampled = lead / sampled.sum(1)[draws].sum(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    difference = (good - bad) / (good + same + bad)
    return GoodSameBad(good, same, bad, difference, float(low), float(high), len(counts))
