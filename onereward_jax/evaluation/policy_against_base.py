"""The judge on pairs (policy's result, base's result): is it right where the policy has moved?

Held-out pairs of candidates do not tell: a policy trained against a judge looks for results that
the judge prefers wrongly, and candidates of the base have few of those.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from onereward_jax.evaluation.gains_by_dimension import ByDimension
from onereward_jax.evaluation.gsb import Verdict
from onereward_jax.evaluation.judge_calibration import Share
from onereward_jax.tasks import Dimension, Task

Decided = Mapping[tuple[int, Dimension], bool]
"""(row, dimension) -> whether the policy's result is better; undecided pairs are absent."""


def decided_by_scores(
    scores: Mapping[int, tuple[ByDimension, ByDimension]], margin: float
) -> Decided:
    """Pairs whose scores of policy and base differ by more than `margin`."""
    return {
        (row, dimension): policy[dimension] > base[dimension]
        for row, (policy, base) in scores.items()
        for dimension in policy
        if abs(policy[dimension] - base[dimension]) > margin
    }


def decided_by_verdicts(verdicts: Iterable[tuple[int, Dimension, Verdict]]) -> Decided:
    """Pairs of which more annotators prefer one result than the other."""
    leads: dict[tuple[int, Dimension], int] = collections.Counter()
    for row, dimension, verdict in verdicts:
        leads[row, dimension] += (verdict is Verdict.GOOD) - (verdict is Verdict.BAD)
    return {pair: lead > 0 for pair, lead in leads.items() if lead}


@dataclasses.dataclass(frozen=True)
class RightOnPolicy(Share):
    """Accuracy on decided pairs; `prefers`: share in which the judge prefers the policy's result.

    `better`: share in which the policy's result *is* better. A judge that `prefers` the policy much
    more often than that is being cheated.
    """

    prefers: float
    better: float


def right_on_policy(
    tasks: Mapping[int, Task], preferences: Mapping[int, ByDimension], decided: Decided
) -> dict[tuple[Task, Dimension], RightOnPolicy]:
    """The judge's accuracy per task and dimension; cells without a decided pair are left out.

    Args:
      tasks: task of each row.
      preferences: the judge's probability in [0, 1] that the policy's result is better, per row;
        0.5 counts half.
      decided: which of the two is better.
    """
    cells = collections.defaultdict(list)
    for (row, dimension), better in decided.items():
        cells[tasks[row], dimension].append((preferences[row][dimension], better))
    ordered = ((task, one) for task in Task for one in Dimension if (task, one) in cells)
    return {cell: _right(cells[cell]) for cell in ordered}


def overall(cells: Mapping[tuple[Task, Dimension], RightOnPolicy]) -> RightOnPolicy:
    """All pairs together.

    Raises:
      ValueError: there is no cell.
    """
    if not cells:
        raise ValueError("no pair of policy and base is decided")
    pairs = sum(one.pairs for one in cells.values())
    means = (
        sum(getattr(one, name) * one.pairs for one in cells.values()) / pairs
        for name in ("accuracy", "prefers", "better")
    )
    return RightOnPolicy(pairs, *means)


def _right(pairs: Iterable[tuple[float, bool]]) -> RightOnPolicy:
    preference, better = np.array(list(pairs), np.float64).T
    prefers = np.where(preference == 0.5, 0.5, preference > 0.5)
    right = np.where(better > 0, prefers, 1.0 - prefers)
    return RightOnPolicy(
        len(better), float(right.mean()), float(prefers.mean()), float(better.mean())
    )
