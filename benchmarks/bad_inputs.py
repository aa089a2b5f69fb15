"""Feeds thousands of broken and odd inputs to the readers of the package and counts what happens.

    python benchmarks/bad_inputs.py                              # everything, on two processes
    python benchmarks/bad_inputs.py --kinds=pictures --each=50   # some of it
    python benchmarks/bad_inputs.py --only="pictures: cut/photo.jpg 3072"   # one, with its error

Files are written, cut, flipped, renamed, re-typed and resized from a seed, so that a run can be
repeated. Every input states what is right: that it is refused, that it is read as the intact one,
or that either may happen. A table has a row per kind:

    refused   one clear sentence (or a capped listing), as a command would print it
    right     read, with the result that the input means
    wrong     read, with another result: silently wrong
    strict    refused, although it is good
    traceback an error that a command would not print as a sentence
    crash     the process died, ran out of memory or hung

The exit code is 0 if the last four are 0. Not covered, because no reader can notice it: tensors of
one shape that change places, and bits of weights and pixels that stay valid numbers.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from pathlib import Path

from bad_inputs_case import BAD, Outcome
from bad_inputs_families import FAMILIES
from bad_inputs_workers import run_cases

COLUMNS = ("refused", "right", "wrong", "strict", "traceback", "crash")


def main() -> None:
    """Runs the cases and prints the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--kinds", default=",".join(FAMILIES), help="families to run (default: %(default)s)")
    add("--each", type=int, default=0, help="at most so many of each kind, drawn; 0: all")
    add("--only", default="", help="only inputs whose name contains this; prints their outcome")
    add("--seed", type=int, default=0, help="seed of the mutations (default %(default)s)")
    add("--workers", type=int, default=2, help="processes (default %(default)s)")
    given = options.parse_args()
    kinds = given.kinds.split(",")
    if unknown := set(kinds) - set(FAMILIES):
        options.error(f"unknown kinds {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    with tempfile.TemporaryDirectory(prefix="bad_inputs_") as root:
        outcomes = run_cases(
            Path(root), kinds, given.seed, given.each, given.only, workers=given.workers
        )
    for one in outcomes:
        if one.verdict in BAD or given.only:
            print(f"{one.verdict}: {one.kind}/{one.name}: {one.detail}\n")
    print(table(outcomes))
    sys.exit(any(one.verdict in BAD for one in outcomes) or not outcomes)


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a row per kind, and their sum."""
    rows = collections.defaultdict(list)
    for one in outcomes:
        rows[one.kind].append(one)
    lines = [
        f"| kind | inputs | {' | '.join(COLUMNS)} | lines of an error: mean, most |",
        "|---|" + "---|" * (len(COLUMNS) + 2),
        *(_row(kind, rows[kind]) for kind in sorted(rows)),
        _row("all", outcomes),
    ]
    return "\n".join(lines)


def _row(kind: str, outcomes: list[Outcome]) -> str:
    counts = collections.Counter(one.verdict for one in outcomes)
    lengths = [one.lines for one in outcomes if one.lines]
    mean = f"{sum(lengths) / len(lengths):.2f}, {max(lengths)}" if lengths else "-"
    cells = [kind, len(outcomes), *(counts[name] for name in COLUMNS), mean]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
