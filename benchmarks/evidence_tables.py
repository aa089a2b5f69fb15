"""Writes the tables of docs/results.md from the rows of benchmarks/evidence.py.

A table replaces what stands between `<!-- evidence: NAME -->` and `<!-- end -->`; the text around
is written by hand. A cell without a row says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import evidence_claims
from evidence_grid import Run
from evidence_plots import write_plots
from evidence_rows import (
    HIDDEN,
    JUDGE,
    ORACLE,
    Row,
    gain,
    good_minus_bad,
    judge_right,
    letters,
    of_run,
)
from evidence_text import NOT_RUN, TITLES, changed, percent, table

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.tasks import DIMENSIONS, PAPER_TASKS

_BLOCK = re.compile(r"(<!-- evidence: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def write_tables(rows: Sequence[Row], docs: Path, grid: Sequence[Run]) -> None:
    """Rewrites the marked blocks of <docs>/results.md, and the plots in <docs>/images.

    Raises:
      ValueError: a block's name is unknown, or there is no block.
      FileNotFoundError: there is no results.md.
    """
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8")
    plots = write_plots(rows, docs / "images", grid)
    made = {
        "runs": runs_table(rows, grid),
        "dimensions": dimensions_table(rows, grid),
        "judge": judge_table(rows, grid),
        "curves": "\n\n".join(plots) or f"*{NOT_RUN}*",
        "claims": evidence_claims.claims_table(rows),
    }

    def block(found: re.Match[str]) -> str:
        if found[2] not in made:
            raise ValueError(f"{page}: no table {found[2]!r}; there are {', '.join(made)}")
        return f"{found[1]}\n{made[found[2]]}\n\n{found[4]}"

    text, count = _BLOCK.subn(block, text)
    if not count:
        raise ValueError(f"{page} has no block <!-- evidence: NAME --> ... <!-- end -->")
    with atomic_file(page) as draft:
        draft.write_text(text, encoding="utf-8")


def runs_table(rows: Sequence[Row], grid: Sequence[Run]) -> str:
    """Good - Bad of the last weights by every rater, and which runs have no row."""
    lines, lacking = [], []
    for run in grid:
        found = of_run(rows, run.name)
        if not found:
            lacking.append(f"`{run.name}` ({run.about})")
            continue
        scenes = found[0]["scenes"] * len(PAPER_TASKS)
        minutes = sum(row["seconds"]["rl"] for row in found) / len(found) / 60
        for rater in (ORACLE, HIDDEN, JUDGE):
            rated = {task: good_minus_bad(found, rater, task) for task in run.tasks}
            if not any(rated.values()):  # without a judge
                continue
            cells = [percent(rated[task]) if task in rated else "–" for task in PAPER_TASKS]
            first = rater == ORACLE
            about = [run.name, run.about] if first else ["", ""]
            cost = [f"{found[0]['steps']}, {minutes:.0f} min" if first else ""]
            lines.append(
                [*about, *cost, f"{len(found)}, {scenes:,}" if first else "", rater, *cells]
            )
    head = ["run", "what differs", "steps, time", "seeds, scenes", "rated by", *TITLES.values()]
    told = [table(head, lines)] if lines else []
    if lacking:
        told.append(f"{NOT_RUN.capitalize()}: {', '.join(lacking)}.")
    return "\n\n".join(told)


def dimensions_table(rows: Sequence[Row], grid: Sequence[Run]) -> str:
    """Change of the oracle's mean score per dimension, one line per run."""
    names = [(task, dimension) for task in PAPER_TASKS for dimension in DIMENSIONS[task]]
    lines = []
    for run in grid:
        if found := of_run(rows, run.name):
            changes = (
                changed(gain(found, ORACLE, task.value, dimension.value))
                if task in run.tasks
                else "–"
                for task, dimension in names
            )
            lines.append([run.name, *changes])
    head = [f"{TITLES[task.value]}: {dimension.title}" for task, dimension in names]
    return table(["run", *head], lines or [[NOT_RUN, *[""] * len(head)]])


def judge_table(rows: Sequence[Row], grid: Sequence[Run]) -> str:
    """How often the judge is right on policy against base, and how well words can be read."""
    lines = []
    for run in grid:
        found = of_run(rows, run.name)
        if not found:
            continue
        right = (judge_right(found, task.value) for task in PAPER_TASKS)
        cells = [f"{100 * hit / pairs:.0f} % of {pairs}" if pairs else "–" for hit, pairs in right]
        lines.append([run.name, *cells, percent(letters(found))])
    if not lines:
        lines.append([NOT_RUN, *[""] * (1 + len(PAPER_TASKS))])
    return table(["run", *TITLES.values(), "letters read, % more"], lines)
