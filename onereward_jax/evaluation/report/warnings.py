"""Warnings of a report: too few triplets or pairs, contradicting results, falling rewards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from onereward_jax.evaluation.gsb import GoodSameBad
from onereward_jax.evaluation.intervals import FEW
from onereward_jax.evaluation.report.report_data import ReportInputs
from onereward_jax.evaluation.report.summary import summarize_curve
from onereward_jax.tasks import TASKS, Task

REWARD_FELL = 0.01
"""Minimum drop of the mean reward over a run that gives a warning."""

LOOKS = ("brightness", "contrast", "colourfulness", "sharpness")
"""Monitors, see `training.reward_hacking.look_inside`."""

BAND = 1.25
"""Largest factor by which such a monitor changes without a warning."""

GAP = "held_out_gap"
GAP_OPEN = 0.1
"""Gap to the held-out judge at the end of a run above which there is a warning."""


def remarks(inputs: ReportInputs) -> list[str]:
    """The warnings, most important first."""
    return [
        *few_triplets(inputs.triplets),
        *few_pairs(inputs),
        *contradictions(inputs.gsb),
        *falling_rewards(inputs),
        *opened_gap(inputs),
        *changed_looks(inputs),
    ]


def few_triplets(triplets: Mapping[Task, tuple[int, int]]) -> Iterator[str]:
    """Tasks with no triplets, with few, or with fewer than requested."""
    wanted = {task: triplets[task] for task in TASKS if task in triplets and triplets[task][0]}
    absent = [task.title for task, (_, found) in wanted.items() if not found]
    if absent:
        yield f"Not compared, because there are no held-out triplets: {', '.join(absent)}."
    few = [f"{task.title} ({found})" for task, (_, found) in wanted.items() if 0 < found < FEW]
    if few:
        yield f"Too few held-out triplets for a conclusion (grey): {', '.join(few)}."
    fewer = [
        f"{task.title} {found} of {asked}"
        for task, (asked, found) in wanted.items()
        if 0 < found < asked
    ]
    if fewer:
        yield f"Fewer held-out triplets than set in config.evaluate.triplets: {', '.join(fewer)}."


def few_pairs(inputs: ReportInputs) -> Iterator[str]:
    """Tasks whose judge accuracy is measured on few pairs in a dimension, or not at all."""
    if not inputs.judge:
        return
    measured = {task for task, _ in inputs.judge}
    absent = [task.title for task in TASKS if task in inputs.triplets and task not in measured]
    if absent:
        yield f"No held-out pairs to measure the judge's accuracy: {', '.join(absent)}."
    rare = {task for (task, _), found in inputs.judge.items() if found.few}
    few = [task.title for task in TASKS if task in rare]
    if few:
        yield (
            f"The judge's accuracy is measured on fewer than {FEW} pairs in some dimensions of: "
            f"{', '.join(few)} (grey)."
        )


def contradictions(gsb: Mapping[str, Mapping[Task, GoodSameBad]]) -> Iterator[str]:
    """Tasks for which two comparisons prefer different editors, at least one significantly."""
    for task in TASKS:
        told = [(by, found[task]) for by, found in gsb.items() if task in found]
        for (by, one), (other_by, other) in itertools.combinations(told, 2):
            clear = any(each.low > 0 or each.high < 0 for each in (one, other))
            if clear and one.difference * other.difference < 0:
                yield (
                    f"{_name(task)}: Good − Bad is {_signed(one)} {by}, but {_signed(other)} "
                    f"{other_by}."
                )


def falling_rewards(inputs: ReportInputs) -> Iterator[str]:
    """Tasks whose reward fell during training although the policy is better."""
    for task in TASKS:
        ends = [summarize_curve(curve) for key, curve in inputs.rewards.items() if key[0] is task]
        ends = [end for end in ends if end["end"] is not None]
        better = [
            f"{_signed(found[task])} {by}"
            for by, found in inputs.gsb.items()
            if task in found and found[task].low > 0
        ]
        if not (ends and better):
            continue
        start, end = (float(np.mean([one[name] for one in ends])) for name in ("start", "end"))
        if start - end >= REWARD_FELL:
            yield (
                f"{_name(task)}: the reward fell from {start:.2f} to {end:.2f} during training, "
                f"although Good − Bad is {', '.join(better)}."
            )


def changed_looks(inputs: ReportInputs) -> Iterator[str]:
    """Brightness, contrast, colourfulness or sharpness that left its band during training.

    Each is a ratio of the policy's images to the reference's inside the mask. The band is relative
    to the start of the run, where x'_0 may be less sharp than the reference's finished image.
    """
    for name in LOOKS:
        if name not in inputs.monitors:
            continue
        ends = summarize_curve(inputs.monitors[name])
        if not ends["start"] or ends["end"] is None:
            continue
        change = ends["end"] / ends["start"]
        if not 1.0 / BAND <= change <= BAND:
            yield (
                f"The {name} of the policy's images inside the mask, relative to the reference's, "
                f"went from {ends['start']:.2f} to {ends['end']:.2f} during training: look at the "
                "images, this may be reward hacking."
            )


def opened_gap(inputs: ReportInputs) -> Iterator[str]:
    """A gap between the judge's reward and the held-out judge's."""
    if GAP not in inputs.monitors:
        return
    end = summarize_curve(inputs.monitors[GAP])["end"]
    if end is not None and end > GAP_OPEN:
        yield (
            f"The judge's reward is {end:.2f} above the held-out judge's at the end of training: "
            "the policy has learnt what only its own judge likes."
        )


def _name(task: Task) -> str:
    return task.title.capitalize()


def _signed(found: GoodSameBad) -> str:
    return f"{100 * found.difference:+.1f} %"
