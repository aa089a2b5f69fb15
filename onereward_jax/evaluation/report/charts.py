"""Charts as inline SVG. Text and axes use the page's text colour, so that dark mode works."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onereward_jax.evaluation.gsb import GoodSameBad
from onereward_jax.evaluation.report.report_data import Curve, JudgeTrust
from onereward_jax.tasks import OWN, TASKS, Dimension, Task

INK = "#010203"
"""Placeholder for the page's text colour; replaced by `currentColor` in the SVG."""

DIMENSION_COLOURS: dict[Dimension, str] = {
    Dimension.STRUCTURE: "#3b7dd8",
    Dimension.CONSISTENCY: "#1f9e89",
    Dimension.TEXT_ALIGNMENT: "#d9822b",
    Dimension.AESTHETICS: "#b0529b",
    Dimension.REMOVAL_QUALITY: "#c8443c",
    **dict(zip(map(Dimension, OWN.dimensions), itertools.cycle(("#8a6d3b", "#5f6f81", "#7f8f2a")))),
}
"""Readable on light and dark backgrounds."""

PAIR_COLOURS = ("#3b7dd8", "#1f9e89", "#d9822b", "#b0529b", "#c8443c", "#8a6d3b")
GSB_COLOURS = {"good": "#2e9e6b", "same": "#9aa3ad", "bad": "#cf5c4a"}
SLIVER = 0.05
"""Bars with a smaller share get their number outside, because it does not fit in."""

PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.3
"""In inches, at 72 points per inch."""

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def reward_curves(rewards: Mapping[tuple[Task, Dimension], Curve]) -> str:
    """Figure 6: reward over training steps, one panel per task, one line per dimension."""
    tasks = [task for task in TASKS if any(key[0] is task for key in rewards)]
    with _drawing("reward", len(tasks)) as (figure, panels):
        for task, axes in zip(tasks, panels):
            for (owner, dimension), curve in rewards.items():
                if owner is task:
                    _line(axes, curve, DIMENSION_COLOURS[dimension], dimension.title)
            axes.axhline(0.5, color=INK, linewidth=0.6, linestyle=(0, (4, 4)), alpha=0.5)
            axes.set(title=task.title, ylim=(0, 1), xlabel="step")
        lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
        named = {one.title: lines[one.title] for one in Dimension if one.title in lines}
        figure.legend(
            named.values(), named, loc="outside lower center", ncols=3, fontsize=8, handlelength=1.2
        )
        return _svg(figure)


def monitor_curves(monitors: Mapping[str, Curve]) -> str:
    """The other monitored quantities, one panel each."""
    with _drawing("monitor", len(monitors)) as (figure, panels):
        for (name, curve), axes in zip(monitors.items(), panels):
            _line(axes, curve, DIMENSION_COLOURS[Dimension.STRUCTURE], name)
            axes.set(title=name, xlabel="step")
            axes.margins(y=0.15)
        return _svg(figure)


def conflict_curves(conflicts: Mapping[str, Mapping[str, Curve]]) -> str:
    """Cosines between gradients over training steps, one panel per title, one line per pair."""
    with _drawing("conflict", len(conflicts)) as (figure, panels):
        for (title, pairs), axes in zip(conflicts.items(), panels):
            for (pair, curve), colour in zip(pairs.items(), itertools.cycle(PAIR_COLOURS)):
                _line(axes, curve, colour, pair)
            axes.axhline(0.0, color=INK, linewidth=0.6, linestyle=(0, (4, 4)), alpha=0.5)
            axes.set(title=title, ylim=(-1, 1), xlabel="step")
            axes.legend(fontsize=5.5, handlelength=1, loc="lower right")
        return _svg(figure)


def gsb_bars(results: Mapping[Task, GoodSameBad], name: str) -> str:
    """Figure 7: one stacked bar of good, same, bad per task, with Good − Bad and its interval."""
    tasks = [task for task in TASKS if task in results]
    with matplotlib.rc_context({**_STYLE, "axes.grid": False, "svg.hashsalt": name}):
        figure = Figure(figsize=(2.3 * PANEL_WIDTH, 0.5 + 0.5 * len(tasks)), layout="constrained")
        axes = figure.subplots()
        for row, task in enumerate(tasks):
            left, one = 0.0, results[task]
            for share, (label, colour) in zip(one.shares, GSB_COLOURS.items()):
                axes.barh(row, share, 0.62, left, color=colour, label=label if not row else None,
                          alpha=0.35 if one.few else 1.0)  # fmt: skip
                if share >= SLIVER:
                    axes.text(left + share / 2, row, f"{100 * share:.1f}", color="white",
                              ha="center", va="center", fontweight="bold")  # fmt: skip
                elif share > 0:  # above or below the bar, so that neighbours do not overlap
                    side, align = (0.33, "top") if label == "same" else (-0.33, "bottom")
                    axes.text(left + share / 2, row + side, f"{100 * share:.1f}", color=colour,
                              ha="center", va=align, fontsize=7)  # fmt: skip
                left += share
            note = f"{100 * one.difference:+.1f}  [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
            axes.text(1.015, row, note, va="center", alpha=0.5 if one.few else 1.0)
        axes.text(1.015, -0.75, "good − bad, 95 %", va="center", fontsize=8)
        axes.set_yticks(range(len(tasks)), [f"{t.title} ({results[t].triplets})" for t in tasks])
        axes.set(xlim=(0, 1), ylim=(len(tasks) - 0.5, -0.95), xticks=[])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=1)
        return _svg(figure)


def trust_curves(trust: JudgeTrust) -> str:
    """Reliability of the judge's probabilities, and accuracy by the number of labels; "" if none.

    With 95 % Wilson intervals.
    """
    bins = trust.calibration.bins if trust.calibration else ()
    sure = ("right by confidence", "confidence", [100 * one.confidence for one in bins], bins)
    labels = [one.labels for one in trust.by_labels]
    learnt = ("accuracy by training pairs", "training pairs", labels, trust.by_labels)
    panels = [panel for panel in (sure, learnt) if panel[-1]]
    if not panels:
        return ""
    with _drawing("trust", len(panels)) as (figure, drawn):
        for (title, axis, places, shares), axes in zip(panels, drawn):
            heights = np.array([100 * one.accuracy for one in shares])
            ends = 100 * np.array([one.interval for one in shares]).T
            axes.errorbar(places, heights, np.abs(ends - heights), fmt="o-", markersize=3,
                          color=DIMENSION_COLOURS[Dimension.STRUCTURE], linewidth=1.2,
                          elinewidth=0.8)  # fmt: skip
            axes.set(title=title, xlabel=axis, ylabel="right, %")
            if shares is bins:
                axes.plot((50, 100), (50, 100), color=INK, linewidth=0.6, linestyle=(0, (4, 4)))
                axes.set(xlabel="confidence, %", xlim=(49, 101))
            else:
                axes.set_xscale("log", base=2)
                axes.set_xticks(places, [f"{place:,}" for place in places])
                axes.minorticks_off()
        return _svg(figure)


@contextlib.contextmanager
def _drawing(name: str, count: int) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure with `count` panels, up to three per row, in the shared style."""
    columns = 2 if count in (2, 4) else min(3, count)
    rows = -(-count // columns)
    # ids inside an SVG are hashes; the salt makes them differ between the charts of a page
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        size = (columns * PANEL_WIDTH, rows * PANEL_HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for spare in panels[count:]:
            spare.set_visible(False)
        yield figure, panels[:count]


def window(curve: Curve) -> int:
    """Number of points for smoothing a curve; 1 (none) if it has too few points."""
    return max(1, len(curve.steps) // 25)


def _line(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    smooth = curve.smoothed(window(curve))
    if window(curve) > 1:
        axes.plot(curve.steps, curve.values, color=colour, linewidth=0.6, alpha=0.3)
    axes.plot(smooth.steps, smooth.values, color=colour, linewidth=1.6, label=label)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without XML prolog; scales with its container."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    size = f'style="width: 100%; max-width: {float(width) * 1.35:.0f}px" role="img"'
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', size, svg, count=1
    )
