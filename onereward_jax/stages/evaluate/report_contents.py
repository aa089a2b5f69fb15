"""Contents of the report other than comparisons: curves, judge accuracy, images."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.image_metrics import ImageMetrics, mean_metrics, measure
from onereward_jax.evaluation.judge_accuracy import JudgeAccuracy
from onereward_jax.evaluation.judge_calibration import (
    AgreedShare,
    Bin,
    Calibration,
    LabelPoint,
)
from onereward_jax.evaluation.report import Curve, GridRow, JudgeTrust, RoundRow
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.judge_measurement import read_on_policy
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task
from onereward_jax.training.reward_hacking import INSIDE
from onereward_jax.training.rl_conflicts import conflict_titles

MONITORS = (
    "saturation",
    "edge_density",
    *INSIDE,
    "outside_drift",
    "reference_outside_drift",
    "zero_gradient",
    "reference_distance",
    "grad_norm",
    *(f"held_out_{name}" for name in ("reward", "gap", "gap_smoothed")),
)
"""Curves other than the reward, by name in metrics.jsonl."""


def read_curves(path: Path) -> tuple[dict[tuple[Task, Dimension], Curve], dict[str, Curve]]:
    """Rewards per task and dimension, and the monitors that were measured, from metrics.jsonl."""
    lines = [json.loads(line) for line in path.read_text().split("\n") if line]
    steps = np.array([line["step"] for line in lines])

    def curve(name: str) -> Curve:
        return Curve(steps, np.array([line.get(name, np.nan) for line in lines], np.float64))

    rewards = {
        (task, dimension): curve(f"reward/{task.value}/{dimension.value}")
        for task in TASKS
        for dimension in DIMENSIONS[task]
    }
    monitors = {name: curve(name) for name in MONITORS}
    measured = {name: one for name, one in monitors.items() if np.isfinite(one.values).any()}
    return rewards, measured


def read_conflicts(path: Path) -> dict[str, dict[str, Curve]]:
    """Cosines of gradients from metrics.jsonl, as `ReportInputs.conflicts`; {} if not measured."""
    lines = [json.loads(line) for line in path.read_text().split("\n") if line]
    found: dict[str, dict[str, Curve]] = {}
    for name, (title, pair) in conflict_titles().items():
        if measured := [line for line in lines if name in line]:
            steps = np.array([line["step"] for line in measured])
            values = np.array([line[name] for line in measured], np.float64)
            found.setdefault(title, {})[pair] = Curve(steps, values)
    return found


def read_judge_table(path: Path) -> dict[tuple[Task, Dimension], JudgeAccuracy]:
    """The judge's accuracy (Table 1), from the stage `reward`."""
    table = {}
    for row in json.loads(path.read_text())["rows"]:
        cell = Task(row.pop("task")), Dimension(row.pop("dimension"))
        table[cell] = JudgeAccuracy(**row)
    return table


def read_trust(accuracy: Path, label_curve: Path) -> JudgeTrust:
    """Calibration and more of the judge, from the stages `reward` and `label_curve`."""
    found = json.loads(accuracy.read_text())
    measured = found.get("calibration")  # not by earlier versions
    calibration = None
    if measured:
        bins = tuple(Bin(**one) for one in measured.pop("bins"))
        calibration = Calibration(**measured, bins=bins)
    by_agreement = [AgreedShare(**one) for one in found.get("by_agreement", ())]
    points = json.loads(label_curve.read_text())["points"] if label_curve.is_file() else ()
    return JudgeTrust(calibration, by_agreement, [LabelPoint(**one) for one in points])


def round_rows(context: StageContext) -> list[RoundRow]:
    """The judges of all rounds; [] if there is one."""
    if context.round == 1:
        return []
    rows = []
    for number in range(1, context.round + 1):
        found = json.loads((context.output("reward", number) / "accuracy.json").read_text())
        cells = found["rows"]
        rows.append(
            RoundRow(
                number,
                sum(cell["pairs"] for cell in cells),
                float(np.mean([cell["accuracy"] for cell in cells])),
                read_on_policy(found),
            )
        )
    return rows


def task_metrics(
    triplets: Triplets,
    rows: Sequence[int],
    pictures: Pictures,
    word_accuracies: Mapping[int, float | None],
) -> dict[Task, ImageMetrics]:
    """Image metrics of an editor, averaged per task; with ground truth if there is a target."""
    measured = collections.defaultdict(list)
    for row in rows:
        example = triplets[row]
        measured[TASKS[triplets.tasks[row]]].append(
            measure(
                pictures[row],
                example["image"],
                example["mask"][..., 0],
                _truth(example),
                word_accuracies.get(row),
            )
        )
    return {task: mean_metrics(found) for task, found in measured.items()}


def picture_grids(
    triplets: Triplets, rows: Sequence[int], base: Pictures, policy: Pictures, count: int
) -> dict[Task, list[GridRow]]:
    """The first `count` triplets of each task with both results, and the ground truth if known."""
    grids: dict[Task, list[GridRow]] = {}
    for row in rows:
        task = TASKS[triplets.tasks[row]]
        shown = grids.setdefault(task, [])
        if len(shown) < count:
            example = triplets[row]
            caption = example["prompt"] if task is not Task.REMOVAL else example["label"]
            shown.append(
                GridRow(
                    caption=caption,
                    source=example["image"],
                    mask=example["mask"][..., 0],
                    base=base[row],
                    policy=policy[row],
                    truth=_truth(example),
                )
            )
    return grids


def _truth(example: Mapping[str, Any]) -> np.ndarray | None:
    return example["target"] if example["has_target"] else None
