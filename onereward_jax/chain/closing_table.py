"""What a run prints at its end: a table of its stages, and where its results are."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from onereward_jax.chain.runner import Outcome


def print_outcomes(outcomes: Sequence[Outcome], workdir: str) -> None:
    """Print the closing table: per stage, whether it ran, how long it took, what came out.

    Paths stand below it, one a line, so that they can be copied whole.

    Args:
      outcomes: of the chain. A result is a path, from the work folder, that begins with its stage.
      workdir: the work folder as it was given.
    """
    paths = {}
    table = Table("stage", "status", "seconds", "results")
    for outcome in outcomes:
        results = dict(outcome.record.results)
        for name, value in outcome.record.results.items():
            if str(value).startswith(f"{outcome.stage}/"):
                paths[name] = f"{workdir.rstrip('/')}/{results.pop(name)}"
        told = ", ".join(f"{name} {value}" for name, value in results.items())
        status = "ran" if outcome.ran else "unchanged"
        table.add_row(outcome.stage, status, f"{outcome.record.seconds:.0f}", told)
    Console().print(table)
    for name, path in paths.items():
        print(f"{name}: {path}")
