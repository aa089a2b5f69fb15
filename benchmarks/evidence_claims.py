"""The paper's claims that a small world can test, and what the rows say about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from evidence_rows import JUDGE, ORACLE, Estimate, Row, gain, good_minus_bad, of_run
from evidence_text import NOT_RUN, TITLES, percent, table

from onereward_jax.evaluation.gsb import PAPER_GSB
from onereward_jax.evaluation.judge_accuracy import PAPER_ACCURACY
from onereward_jax.tasks import DIMENSIONS, PAPER_TASKS, Task

MULTI = "long"
"""The run that stands for the paper's: Algorithm 1, all tasks."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim: where the paper makes it, what it says, and what the rows say; None: no row."""

    where: str
    said: str
    found: Callable[[Sequence[Row]], str | None]


def claims_table(rows: Sequence[Row]) -> str:
    """One line per claim."""
    lines = [[one.where, one.said, one.found(rows) or NOT_RUN] for one in CLAIMS]
    return table(["where", "the paper", "here"], lines)


def rewards_rise(rows: Sequence[Row]) -> str | None:
    """First and last tenth of the judge's rewards per task, and the oracle's means."""
    found = of_run(rows, MULTI)
    if not found:
        return None
    rose = total = oracle_rose = oracle_fell = 0
    ends = []
    for task in PAPER_TASKS:
        firsts, lasts = [], []
        for dimension in DIMENSIONS[task]:
            curves = [row["rewards"].get(f"{task.value}/{dimension.value}", []) for row in found]
            edges = [_ends([value for _, value in curve]) for curve in curves if len(curve) > 1]
            if edges:
                first, last = np.mean(edges, 0)
                firsts.append(first)
                lasts.append(last)
                total += 1
                rose += bool(last > first)
            change = gain(found, ORACLE, task.value, dimension.value)
            oracle_rose += change.low > 0
            oracle_fell += change.high < 0
        if firsts:
            ends.append(f"{TITLES[task]} {np.mean(firsts):.2f} → {np.mean(lasts):.2f}")
    cells = sum(len(DIMENSIONS[task]) for task in PAPER_TASKS)
    return (
        f"the judge's rewards: {', '.join(ends)}; {rose} of {total} rose. By the oracle "
        f"{oracle_rose} of {cells} rose and {oracle_fell} fell beyond the interval"
    )


def people_prefer(rows: Sequence[Row]) -> str | None:
    """Good - Bad per task, next to Figure 7's."""
    found = of_run(rows, MULTI)
    if not found:
        return None
    each = (
        f"{TITLES[task]} {percent(good_minus_bad(found, ORACLE, task))} by the oracle, "
        f"{percent(good_minus_bad(found, JUDGE, task))} by the judge"
        for task in PAPER_TASKS
    )
    return "; ".join(each)


def judge_accuracy(rows: Sequence[Row]) -> str | None:
    """Mean accuracy of the judge per task, over dimensions and seeds."""
    cells: dict[str, list[tuple[float, int]]] = {}
    for row in of_run(rows, MULTI):
        for cell in row["accuracy"]:
            cells.setdefault(cell["task"], []).append((cell["accuracy"], cell["pairs"]))
    if not cells:
        return None
    return ", ".join(
        f"{TITLES[task]} {100 * np.mean([accuracy for accuracy, _ in cells[task]]):.1f} "
        f"({sum(pairs for _, pairs in cells[task])} pairs)"
        for task in PAPER_TASKS
        if task in cells
    )


def dynamic_against_frozen(rows: Sequence[Row]) -> str | None:
    """Algorithm 2 minus Algorithm 1 in Good - Bad."""
    return _against(rows, dict.fromkeys(PAPER_TASKS, "dynamic"))


def single_against_multi(rows: Sequence[Row]) -> str | None:
    """Single-task runs minus the multi-task run, at equal samples of the task."""
    return _against(rows, {task: f"only-{task.value}" for task in PAPER_TASKS})


def fluctuation(rows: Sequence[Row]) -> str | None:
    """Standard deviation of a logged reward around its neighbours, multi-task and single-task."""
    multi, told = of_run(rows, MULTI), []
    for task in PAPER_TASKS:
        single = of_run(rows, f"only-{task.value}")
        if multi and single:
            told.append(
                f"{TITLES[task]} {_roughness(multi, task):.3f} against "
                f"{_roughness(single, task):.3f}"
            )
    return "; ".join(told) or None


def needs_people(rows: Sequence[Row]) -> str:
    """What only people can rate."""
    return "needs people: `evaluate.usability` asks them"


def _against(rows: Sequence[Row], names: dict[Task, str]) -> str | None:
    multi, told = of_run(rows, MULTI), []
    for task, name in names.items():
        other = good_minus_bad(of_run(rows, name), ORACLE, task)
        own = good_minus_bad(multi, ORACLE, task)
        if other and own:
            told.append(f"{TITLES[task]} {percent(_difference(other, own))}")
    return "; ".join(told) or None


def _difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, as of independent runs: half-widths add in squares."""
    value = a.value - b.value
    low = np.hypot(a.value - a.low, b.high - b.value)
    high = np.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - float(low), value + float(high), ())


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    some = max(1, len(values) // 10)
    return float(np.mean(values[:some])), float(np.mean(values[-some:]))


def _roughness(rows: Sequence[Row], task: Task) -> float:
    """Of each curve of the task: deviation of its steps, which a trend hardly changes."""
    found = []
    for row in rows:
        for dimension in DIMENSIONS[task]:
            values = [value for _, value in row["rewards"].get(f"{task}/{dimension}", [])]
            if len(values) > 2:
                found.append(np.std(np.diff(values)) / np.sqrt(2))
    return float(np.mean(found)) if found else float("nan")


def _percents(values: Sequence[float]) -> str:
    return ", ".join(
        f"{TITLES[task]} {value:.1f}" for task, value in zip(PAPER_TASKS, values, strict=True)
    )


_FIGURE_7 = [good - bad for good, _, bad in PAPER_GSB]
_TABLE_1 = [
    float(
        np.mean(
            [
                PAPER_ACCURACY[task, dimension]
                for dimension in DIMENSIONS[task]
                if (task, dimension) in PAPER_ACCURACY
            ]
        )
    )
    for task in PAPER_TASKS
]

CLAIMS = (
    Claim(
        "Figure 6",
        "rewards rise from about 0.3–0.5 to 0.8–0.9 in every task and dimension",
        rewards_rise,
    ),
    Claim("Figure 6", "rewards fluctuate more than in single-task training", fluctuation),
    Claim("Figure 7", f"people prefer the trained model: {_percents(_FIGURE_7)}", people_prefer),
    Claim(
        "Table 1",
        f"one judge is right for all tasks, % of held-out pairs: {_percents(_TABLE_1)}",
        judge_accuracy,
    ),
    Claim(
        "Algorithm 2",
        "the moving average as reference does as well as a frozen one (pictures only); "
        "here: Algorithm 2 minus Algorithm 1, Good − Bad by the oracle",
        dynamic_against_frozen,
    ),
    Claim(
        "Section 3",
        "one policy for many tasks is as good as one for each; here: single-task minus "
        "multi-task at equal samples of the task, Good − Bad by the oracle",
        single_against_multi,
    ),
    Claim("Table 2", "results are usable more often than those of other systems", needs_people),
)
