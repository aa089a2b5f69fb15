"""All numbers of a report as JSON values, for comparing runs in code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onereward_jax.evaluation.judge_accuracy import PAPER_ACCURACY
from onereward_jax.evaluation.policy_against_base import overall
from onereward_jax.evaluation.report.report_data import Curve, ReportInputs

END_SHARE = 0.1
"""Start and end of a curve are means over this share of its points, to reduce noise."""


def summarize(inputs: ReportInputs) -> dict[str, Any]:
    """The report as JSON values: names as keys, NaN and infinity as null."""
    judge: dict[str, dict[str, Any]] = {}
    for (task, dimension), accuracy in inputs.judge.items():
        row = dataclasses.asdict(accuracy)
        row["low"], row["high"] = accuracy.interval
        if (task, dimension) in PAPER_ACCURACY:  # custom tasks have none
            row["paper_accuracy"] = PAPER_ACCURACY[task, dimension] / 100
        judge.setdefault(str(task), {})[str(dimension)] = row
    rewards: dict[str, dict[str, Any]] = {}
    for (task, dimension), curve in inputs.rewards.items():
        rewards.setdefault(str(task), {})[str(dimension)] = summarize_curve(curve)
    gains: dict[str, dict[str, Any]] = {}
    for (task, dimension), gain in inputs.gains.items():
        gains.setdefault(str(task), {})[str(dimension)] = gain
    agreement: dict[str, dict[str, Any]] = {}
    for (task, dimension), agreed in inputs.agreement.items():
        agreement.setdefault(str(task), {})[str(dimension)] = agreed
    people: dict[str, Any] = {"gsb": {}, "usable": {}}
    if inputs.people is not None:
        people["usable"] = inputs.people.usable
        for editor, cells in inputs.people.gsb.items():
            for (task, dimension), found in cells.items():
                of_task = people["gsb"].setdefault(editor, {}).setdefault(str(task), {})
                of_task[str(dimension)] = found
    on_policy: dict[str, dict[str, Any]] = {}
    for name, right in inputs.on_policy.items():
        of_judge = on_policy.setdefault(name, {"overall": dataclasses.asdict(overall(right))})
        for (task, dimension), found in right.items():
            row = dataclasses.asdict(found)
            row["low"], row["high"] = found.interval
            of_judge.setdefault(str(task), {})[str(dimension)] = row
    summary = {
        "title": inputs.title,
        "rewards": rewards,
        "gsb": inputs.gsb,
        "gains": gains,
        "judge": judge,
        "monitors": {name: summarize_curve(curve) for name, curve in inputs.monitors.items()},
        "conflicts": {
            title: {pair: summarize_curve(curve) for pair, curve in pairs.items()}
            for title, pairs in inputs.conflicts.items()
        },
        "metrics": inputs.metrics,
        "settings": inputs.settings,
        "about": inputs.about,
        "triplets": {
            str(task): {"asked": asked, "found": found}
            for task, (asked, found) in inputs.triplets.items()
        },
        "agreement": agreement,
        "trust": inputs.trust,
        "people": people,
        "on_policy": on_policy,
        "rounds": inputs.rounds,
    }
    return _json(summary)


def summarize_curve(curve: Curve) -> dict[str, Any]:
    """Means of the first and last tenth, minimum, maximum, and all points."""
    points = np.stack([curve.steps, curve.values], -1)
    values = curve.values[np.isfinite(curve.values)]
    if not len(values):
        return {"start": None, "end": None, "lowest": None, "highest": None, "points": points}
    tenth = max(1, round(END_SHARE * len(values)))
    return {
        "start": values[:tenth].mean(),
        "end": values[-tenth:].mean(),
        "lowest": values.min(),
        "highest": values.max(),
        "points": points,
    }


def _json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _json(kept) for key, kept in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _json(value.tolist())
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [_json(kept) for kept in value]
    raise TypeError(f"{type(value).__name__} in the report's settings has no JSON form: {value!r}")
