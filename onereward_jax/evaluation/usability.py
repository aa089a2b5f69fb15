"""Usability: the share of results that people would use as they are (Table 2 of the paper)."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Iterable, Mapping

import numpy as np

from onereward_jax.evaluation.intervals import FEW, wilson
from onereward_jax.tasks import Task

PAPER_USABILITY: Mapping[Task, float] = types.MappingProxyType(
    {
        Task.FILL: 69.04,
        Task.EXTEND_WITH_PROMPT: 64.72,
        Task.EXTEND_WITHOUT_PROMPT: 87.54,
        Task.REMOVAL: 82.22,
    }
)
"""Table 2: % of the RL model's results that people call usable."""


@dataclasses.dataclass(frozen=True)
class UsableVote:
    """One annotator's answer about one editor's result for a triplet."""

    triplet_id: str
    task: Task
    usable: bool


@dataclasses.dataclass(frozen=True)
class Usability:
    """Usability of an editor in a task.

    `share` in [0, 1]: mean over `triplets` of the share of votes for "usable". `votes`: number of
    votes, several per triplet if several annotators answered.
    """

    share: float
    triplets: int
    votes: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `share` over triplets: votes on one are not independent."""
        return wilson(self.share, self.triplets)

    @property
    def few(self) -> bool:
        """Whether there are too few triplets for a conclusion."""
        return self.triplets < FEW


def usability(votes: Iterable[UsableVote]) -> dict[Task, Usability]:
    """The usability of one editor, per task."""
    by_task: dict[Task, dict[str, list[bool]]] = {}
    for one in votes:
        triplets = by_task.setdefault(one.task, collections.defaultdict(list))
        triplets[one.triplet_id].append(one.usable)
    return {
        task: Usability(
            float(np.mean([np.mean(given) for given in triplets.values()])),
            len(triplets),
            sum(map(len, triplets.values())),
        )
        for task, triplets in by_task.items()
    }
