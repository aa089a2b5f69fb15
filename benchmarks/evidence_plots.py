"""Plots of the rows: Good - Bad and scores by oracle and judge against steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from evidence_grid import Run
from evidence_rows import JUDGE, ORACLE, Row, gain, good_minus_bad, of_run, steps_of
from evidence_text import TITLES
from matplotlib import pyplot

from onereward_jax.tasks import DIMENSIONS, Dimension, Task

COLOURS = {ORACLE: "#1f77b4", JUDGE: "#d62728"}


def write_plots(rows: Sequence[Row], folder: Path, grid: Sequence[Run]) -> list[str]:
    """Writes a plot per run that was compared at several steps; returns their Markdown."""
    written = []
    for run in grid:
        found = of_run(rows, run.name)
        steps = steps_of(found)
        if len(steps) < 2:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        name = f"evidence-{run.name}.png"
        plot(found, steps, run.tasks, folder / name)
        seeds = f"{len(found)} seed{'s' * (len(found) > 1)}"
        written.append(
            f"![Good − Bad and scores against steps]({folder.name}/{name})\n\n"
            f"*`{run.name}` ({run.about}), {seeds}. Above: Good − Bad in % by the oracle (blue) "
            "and by the run's judge (red), with 95 % intervals. Below: change of the oracle's mean "
            "score per dimension.*"
        )
    return written


def plot(rows: Sequence[Row], steps: Sequence[int], tasks: Sequence[Task], path: Path) -> None:
    """Writes a plot: Good - Bad above, the oracle's scores below, a column per task."""
    figure, axes = pyplot.subplots(
        2, len(tasks), figsize=(3 * len(tasks), 5), sharex=True, squeeze=False, sharey="row"
    )
    for column, task in enumerate(tasks):
        above, below = axes[:, column]
        above.set_title(TITLES[task])
        for rater, colour in COLOURS.items():
            points = [(step, good_minus_bad(rows, rater, task, step)) for step in steps]
            points = [(step, one) for step, one in points if one is not None]
            if not points:
                continue
            # At step 0 both editors are the base.
            x, value = [0, *(step for step, _ in points)], [0, *(100 * p.value for _, p in points)]
            above.plot(x, value, "o-", color=colour, label=rater, markersize=3)
            low, high = (
                [0, *(100 * getattr(p, end) for _, p in points)] for end in ("low", "high")
            )
            above.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for dimension in DIMENSIONS[task]:
            points = [(step, gain(rows, ORACLE, task, dimension, step)) for step in steps]
            y = [0, *(one.value for _, one in points)]
            colour = f"C{2 + list(Dimension).index(dimension)}"
            below.plot([0, *steps], y, "o-", label=dimension.title, color=colour, markersize=3)
        for axis in (above, below):
            axis.axhline(0, color="grey", linewidth=0.7)
        below.set_xlabel("steps")
        below.legend(fontsize=6)
    axes[0, 0].set_ylabel("Good − Bad, %")
    axes[1, 0].set_ylabel("oracle, policy − base")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
