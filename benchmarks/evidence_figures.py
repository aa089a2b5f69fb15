"""Figures of a comparison, as they stand in a row: counts and means with their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_compare import Compared, comparison_folder
from evidence_rows import HIDDEN, JUDGE, ORACLE
from ml_collections import ConfigDict

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.evaluation.gains_by_dimension import gains
from onereward_jax.evaluation.gsb import CONFIDENCE, RESAMPLES, Comparison, Verdict, good_same_bad
from onereward_jax.evaluation.policy_against_base import decided_by_scores, right_on_policy
from onereward_jax.stages.evaluate.judge_verdicts import preferred
from onereward_jax.stages.evaluate.oracle_verdicts import verdict
from onereward_jax.tasks import Dimension, Task

POINTS = "points.json"
"""File of the points in the folder of a comparison."""


def margins_of(config: ConfigDict) -> dict[str, float]:
    """The differences that count, for `figures`."""
    return {
        "same": config.mini.same_margin,
        "judge_same": config.evaluate.judge_same_margin,
        "margin": config.mini.margin,
    }


def figures(compared: Compared, *, same: float, judge_same: float, margin: float) -> dict[str, Any]:
    """One point of a row; every value is a number, a text, a list or a dict.

    Args:
      compared: what the raters said.
      same, judge_same: least difference for Good or Bad, of the oracle and of the judge.
      margin: least difference of the oracle in one dimension for the judge to be right or wrong.
    """
    scores = {
        rater: {
            row: (getattr(policy, part), getattr(base, part))
            for row, (policy, base) in compared.oracle.items()
        }
        for rater, part in ((ORACLE, "scores"), (HIDDEN, "hidden"))
    }
    verdicts = {
        rater: {row: verdict(policy, base, same) for row, (policy, base) in found.items()}
        for rater, found in scores.items()
    }
    if compared.judge:
        verdicts[JUDGE] = {row: preferred(one, judge_same) for row, one in compared.judge.items()}
    return {
        "step": compared.step,
        "good_same_bad": {
            rater: _good_same_bad(found, compared.tasks) for rater, found in verdicts.items()
        },
        "dimensions": {
            rater: _dimensions(compared, found)
            for rater, found in scores.items()
            if rater == ORACLE or found != scores[ORACLE]
        },
        "judge_right": _judge_right(compared, scores[ORACLE], margin) if compared.judge else {},
        "letters": _letters(compared),
    }


def keep_points(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Keeps the points of a run beside its pictures, for benchmarks/gallery.py."""
    with atomic_file(comparison_folder(folder) / POINTS) as draft:
        draft.write_text(json.dumps(points, indent=1))


def _good_same_bad(
    found: Mapping[int, Verdict], tasks: Mapping[int, Task]
) -> dict[str, dict[str, float]]:
    counted = good_same_bad(Comparison(str(row), tasks[row], one) for row, one in found.items())
    return {
        task.value: {
            "good": one.good,
            "same": one.same,
            "bad": one.bad,
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
        }
        for task, one in counted.items()
    }


def _dimensions(
    compared: Compared, scores: Mapping[int, tuple[Mapping[Dimension, float], ...]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> dimension -> means of base and policy, and the interval of their difference."""
    preferences = compared.judge or {row: dict.fromkeys(Dimension, np.nan) for row in scores}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (task, dimension), gain in gains(compared.tasks, preferences, scores).items():
        rows = [row for row, one in compared.tasks.items() if one is task]
        differences = [scores[row][0][dimension] - scores[row][1][dimension] for row in rows]
        cell = {
            "scenes": gain.triplets,
            "base": gain.base,
            "policy": gain.policy,
            "deviation": float(np.std(differences)),
        }
        if gain.low is not None:
            cell |= {"low": gain.low, "high": gain.high}
        if compared.judge:
            cell["judge"] = gain.preference
        found.setdefault(task.value, {})[dimension.value] = cell
    return found


def _judge_right(
    compared: Compared, scores: Mapping[int, tuple[Mapping[Dimension, float], ...]], margin: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> dimension -> how often the judge prefers what the oracle does, of policy and base."""
    decided = decided_by_scores(scores, margin)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (task, dimension), one in right_on_policy(compared.tasks, compared.judge, decided).items():
        cell = {"pairs": one.pairs, "right": one.accuracy * one.pairs}
        cell |= {"prefers": one.prefers, "better": one.better}
        found.setdefault(task.value, {})[dimension.value] = cell
    return found


def _letters(compared: Compared, seed: int = 0) -> dict[str, float]:
    """Share of the letters of a word that can be read; {} without a word."""
    pairs = np.array(
        [
            (policy.letters, base.letters)
            for policy, base in compared.oracle.values()
            if policy.letters is not None
        ]
    )
    if not len(pairs):
        return {}
    differences = pairs[:, 0] - pairs[:, 1]
    draws = np.random.default_rng(seed).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences[draws].mean(1), [tail, 1 - tail])
    policy, base = pairs.mean(0)
    return {
        "words": len(pairs),
        "base": float(base),
        "policy": float(policy),
        "low": float(low),
        "high": float(high),
        "deviation": float(np.std(differences)),
    }
