"""The rows of benchmarks/evidence.py, and what they say over all seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onereward_jax.evaluation.gsb import CONFIDENCE, RESAMPLES
from onereward_jax.evaluation.intervals import Z

Row = Mapping[str, Any]

ORACLE, HIDDEN, JUDGE = "oracle", "oracle by the hidden truth", "judge"
"""Raters. The second compares the structure of extensions with what was cut off."""


class Estimate(NamedTuple):
    """A figure over the seeds of a run, with its 95 % interval and the value of each seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows; of those with one name and seed, the last. [] without a file.

    Raises:
      ValueError: a line is damaged.
    """
    if not path.is_file():
        return []
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows[row["name"], row["seed"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a row ({error})") from error
    return list(rows.values())


def write_row(path: Path, row: Row) -> None:
    """Appends a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def of_run(rows: Iterable[Row], name: str) -> list[Row]:
    """The rows of a run, by seed."""
    return sorted((row for row in rows if row["name"] == name), key=lambda row: row["seed"])


def good_minus_bad(rows: Sequence[Row], rater: str, task: str, step: int | None = None):
    """Good - Bad in [-1, 1] over all scenes of all seeds; None if it was not measured.

    Scenes are resampled within each seed, so the interval is that of these runs: how much runs of
    other seeds differ is seen from `Estimate.seeds`.
    """
    cells = [
        found
        for row in rows
        if (point := _point(row, step))
        and (found := point["good_same_bad"].get(rater, {}).get(task))
    ]
    if not cells:
        return None
    rng, resampled = np.random.default_rng(0), []
    for cell in cells:
        counts = np.array([cell[name] for name in ("good", "same", "bad")])
        # One scene has one verdict: resampling scenes is drawing counts.
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), RESAMPLES)
        resampled.append((drawn[:, 0] - drawn[:, 2]) / counts.sum())
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.mean(resampled, 0), [tail, 1 - tail])
    seeds = tuple(cell["difference"] for cell in cells)
    return Estimate(float(np.mean(seeds)), float(low), float(high), seeds)


def gain(rows: Sequence[Row], rater: str, task: str, dimension: str, step: int | None = None):
    """Mean score of the policy minus that of the base; None if it was not measured."""
    cells = []
    for row in rows:
        point = _point(row, step)
        raters = point["dimensions"] if point else {}
        # The raters differ only where both are listed.
        found = raters.get(rater, raters.get("oracle", {})).get(task, {}).get(dimension)
        if found:
            cells.append(found)
    return _mean([(one["policy"] - one["base"], one["deviation"], one["scenes"]) for one in cells])


def letters(rows: Sequence[Row], step: int | None = None):
    """Letters read of the policy's words minus the base's, share; None if it was not measured."""
    cells = [point["letters"] for row in rows if (point := _point(row, step))]
    return _mean(
        [(one["policy"] - one["base"], one["deviation"], one["words"]) for one in cells if one]
    )


def judge_right(rows: Sequence[Row], task: str) -> tuple[float, int]:
    """(right, pairs) of the judge on the last policy against base, over dimensions and seeds."""
    cells = [
        cell for row in rows for cell in _point(row, None)["judge_right"].get(task, {}).values()
    ]
    return sum(one["right"] for one in cells), sum(one["pairs"] for one in cells)


def steps_of(rows: Sequence[Row]) -> list[int]:
    """Steps that every seed was compared at."""
    each = [{point["step"] for point in row["points"]} for row in rows]
    return sorted(set.intersection(*each)) if each else []


def _point(row: Row, step: int | None) -> Row | None:
    """The point of a step; the last for None; None if there is none."""
    points = sorted(row["points"], key=lambda point: point["step"])
    if step is None:
        return points[-1]
    return next((point for point in points if point["step"] == step), None)


def _mean(cells: Sequence[tuple[float, float, int]]) -> Estimate | None:
    """Mean of (mean, deviation, count) over seeds; the interval is the normal one."""
    if not cells:
        return None
    values = tuple(mean for mean, _, _ in cells)
    spread = math.sqrt(sum(deviation**2 / count for _, deviation, count in cells)) / len(cells)
    mean = float(np.mean(values))
    return Estimate(mean, mean - Z * spread, mean + Z * spread, values)
