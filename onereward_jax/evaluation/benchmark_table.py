"""Means of a benchmark's metrics per editor, with intervals over pictures, as CSV and Markdown."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from onereward_jax.common.listing import first_of
from onereward_jax.evaluation.benchmark_metrics import METRICS, Metric
from onereward_jax.evaluation.gsb import CONFIDENCE, RESAMPLES
from onereward_jax.evaluation.intervals import FEW
from onereward_jax.tasks import Task

ALL = "all"
"""Group of all tasks of a benchmark."""


@dataclasses.dataclass(frozen=True)
class MeasuredRow:
    """What was measured of one editor's picture of one row.

    Attributes:
      benchmark, row, editor: names.
      task, prompt: of the row.
      values: metric -> value.
      missing: metric -> why it has no value.
    """

    benchmark: str
    row: str
    editor: str
    task: Task
    prompt: str
    values: Mapping[str, float]
    missing: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A mean over `count` pictures.

    `low`, `high`: 95 % bootstrap interval over pictures, None for one picture. `difference`: mean
    difference to the first editor on the pictures that both have, with its interval; None for the
    first editor, and without common pictures.
    """

    count: int
    mean: float
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    @property
    def few(self) -> bool:
        """Whether there are too few pictures for a conclusion."""
        return self.count < FEW

    def lead(self, metric: Metric) -> str:
        """ "better" or "worse" than the first editor, if the interval says so; else ""."""
        low, high, equal = self.difference_low, self.difference_high, 0.0
        if metric.equal is not None:
            low, high, equal = self.low, self.high, metric.equal
        if low is None or self.few or low <= equal <= high:
            return ""
        return "better" if (low > equal) == metric.higher else "worse"


Groups = dict[tuple[str, str], dict[str, dict[str, Cell]]]
"""(benchmark, task or `ALL`) -> editor -> metric -> cell."""


def table_of(rows: Sequence[MeasuredRow], editors: Sequence[str], seed: int = 0) -> Groups:
    """The cells of each benchmark, of all of its tasks and, if there are several, of each.

    Args:
      rows: all measured rows.
      editors: in order; the others are compared with the first.
      seed: of the bootstrap.
    """
    groups: Groups = {}
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        own = [row for row in rows if row.benchmark == benchmark]
        tasks = list(dict.fromkeys(row.task for row in own))
        parts = {ALL: own}
        if len(tasks) > 1:
            parts |= {task.title: [row for row in own if row.task is task] for task in tasks}
        for part, members in parts.items():
            groups[benchmark, part] = _cells(members, editors, seed)
    return groups


def _cells(
    rows: Iterable[MeasuredRow], editors: Sequence[str], seed: int
) -> dict[str, dict[str, Cell]]:
    values: dict[tuple[str, str], dict[str, float]] = collections.defaultdict(dict)
    for row in rows:
        for metric, value in row.values.items():
            values[row.editor, metric][row.row] = value
    return {
        editor: {
            metric: _cell(
                values[editor, metric],
                {} if editor == editors[0] else values.get((editors[0], metric), {}),
                seed,
            )
            for metric in METRICS
            if values.get((editor, metric))
        }
        for editor in editors
    }


def _cell(own: Mapping[str, float], first: Mapping[str, float], seed: int) -> Cell:
    common = [row for row in own if row in first]
    differences = np.array([own[row] - first[row] for row in common])
    mean, low, high = interval(np.array(list(own.values())), seed)
    beyond = interval(differences, seed) if common else (None, None, None)
    return Cell(len(own), mean, low, high, *beyond)


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float | None, float | None]:
    """(mean, low, high): 95 % percentile interval over 2,000 resamples; none for one value."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    rng = np.random.default_rng(seed)
    # Of many pictures, a part of the resamples at a time.
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), (part, len(values)))].mean(1)
            for part in [100] * (RESAMPLES // 100)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return mean, float(low), float(high)


def as_csv(groups: Groups) -> str:
    """One line per cell: benchmark, task, editor, metric, and the fields of `Cell`."""
    names = [field.name for field in dataclasses.fields(Cell)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "task", "editor", "metric", *names])
    for (benchmark, task), editors in groups.items():
        for editor, cells in editors.items():
            for metric, cell in cells.items():
                found = ["" if value is None else value for value in dataclasses.astuple(cell)]
                writer.writerow([benchmark, task, editor, metric, *found])
    return text.getvalue()


def as_markdown(groups: Groups, rows: Sequence[MeasuredRow]) -> str:
    """A table per group, means with intervals; then what was not measured, and why."""
    parts = []
    for (benchmark, task), editors in groups.items():
        metrics = shown_metrics(editors)
        counts = {row.row for row in rows if row.benchmark == benchmark and _in(row, task)}
        parts.append(f"## {benchmark}, {task} ({len(counts)} pictures)\n")
        titles = (
            METRICS[name].title + (" ↑" if METRICS[name].higher else " ↓") for name in metrics
        )
        parts.append("| editor | " + " | ".join(titles) + " |")
        parts.append("|---" * (len(metrics) + 1) + "|")
        for editor, cells in editors.items():
            told = (_text(cells.get(name), name) for name in metrics)
            parts.append(f"| {editor} | " + " | ".join(told) + " |")
        parts.append("")
    if lines := [f"- {line}" for line in not_measured(rows)]:
        parts += ["## Not measured\n", *lines, ""]
    return "\n".join(parts)


def shown_metrics(editors: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """The metrics that some editor has, in their order."""
    return [name for name in METRICS if any(name in cells for cells in editors.values())]


def not_measured(rows: Sequence[MeasuredRow]) -> Iterator[str]:
    """A sentence for each benchmark, reason and group of editors: which metrics, which pictures."""
    everyone = {(row.benchmark, row.editor) for row in rows}
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        for metric, reason in row.missing.items():
            editors = found.setdefault((row.benchmark, metric, reason), {})
            editors.setdefault(row.editor, []).append(row.row)
    said: dict[tuple[str, str, str, str], list[str]] = {}
    for (benchmark, metric, reason), editors in found.items():
        own = [editor for name, editor in sorted(everyone) if name == benchmark]
        who = "all editors" if set(editors) == set(own) else ", ".join(editors)
        names = list(dict.fromkeys(name for some in editors.values() for name in some))
        total = len({row.row for row in rows if row.benchmark == benchmark})
        which = f"{len(names)} of {total} pictures"
        if len(names) < total:
            which += f" ({', '.join(first_of(names, 3))})"
        said.setdefault((benchmark, who, which, reason), []).append(METRICS[metric].title)
    for (benchmark, who, which, reason), titles in said.items():
        yield f"{benchmark}, {who}, {which}: {reason}: no {', '.join(titles)}"


def _in(row: MeasuredRow, task: str) -> bool:
    return task in (ALL, row.task.title)


def _text(cell: Cell | None, name: str) -> str:
    if cell is None:
        return ""
    text = METRICS[name].text
    if cell.low is None:
        return text(cell.mean)
    return f"{text(cell.mean)} [{text(cell.low)}, {text(cell.high)}]"
