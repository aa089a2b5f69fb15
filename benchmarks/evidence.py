"""Runs a declared grid of mini runs, compares each with its base, and writes docs/results.md.

    python benchmarks/evidence.py --out=runs/evidence --select=quickstart,long --seeds=0,1,2
    python benchmarks/evidence.py --out=runs/evidence --hours=8       # all of the grid
    python benchmarks/evidence.py --table --rows=benchmarks/evidence.jsonl   # only docs/results.md

The grid is in benchmarks/evidence_grid.py, or in a file of your own with `GRID`. Every run and seed
gives one line of <out>/rows.jsonl: Good - Bad by the oracle and by the run's judge, means per
dimension, how often the judge is right on policy against base, letters read, on scenes drawn anew
(`--scenes` per task for the last weights, `--curve` for those of earlier steps). The rows of
docs/results.md are in benchmarks/evidence.jsonl.

The same command goes on where it was stopped. What has a row is not measured again, until its line
in the grid, the seed or the number of scenes changes. Runs share the stages whose inputs are equal
(--share=runs/mini: also with other work folders). On two cores a quickstart takes 10 minutes, the
comparison 3.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import evidence_grid as grid
from evidence_compare import compare, rounds_of
from evidence_figures import figures, keep_points, margins_of
from evidence_oracle import Mapped, in_processes
from evidence_rows import read_rows, write_row
from evidence_runs import RunFailed, train
from evidence_tables import write_tables
from ml_collections import FrozenConfigDict

from onereward_jax.common.user_errors import TRY_AGAIN, Stopped
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.stages.training_logs import prepare_logging
from onereward_jax.training.metrics_jsonl import METRICS, read_metrics

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "runs" / "evidence", help="folder of runs and scenes")
    add("--rows", type=Path, help="file of rows; default: <out>/rows.jsonl")
    add("--select", default="", help="names of runs, with commas; default: all")
    add("--seeds", default="0,1,2", help="of the runs, with commas")
    add("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    add("--scenes", type=int, default=400, help="new scenes per task")
    add("--curve", type=int, default=100, help="the same for the weights of earlier steps")
    add("--share", type=Path, action="append", default=[], help="work folder to share stages with")
    add("--processes", type=int, default=os.cpu_count(), help="of the oracle")
    add("--config", default=grid.CONFIG, help="config of all runs")
    add("--grid", type=Path, default=Path(grid.__file__), help="Python file with GRID")
    add("--table", action="store_true", help="only write docs/results.md and its plots")
    add("--docs", type=Path, default=ROOT / "docs", help="folder of results.md")
    return parser.parse_args()


def main(given: argparse.Namespace) -> None:
    """Runs what has no row, then writes the tables."""
    rows, runs = given.rows or given.out / "rows.jsonl", grid.read_grid(given.grid)
    failed = [] if given.table else run_grid(given, grid.selected(given.select, runs), rows)
    write_tables(read_rows(rows), given.docs, runs)
    if failed:
        raise SystemExit("error: " + "; ".join(failed))


def run_grid(given: argparse.Namespace, runs: Sequence[grid.Run], rows: Path) -> list[str]:
    """Appends the missing rows; returns what failed: the next run may succeed."""
    started, failed = time.monotonic(), []
    with in_processes(given.processes) as mapped:
        # Seed by seed: the first seed of every run is known early.
        for seed in [int(seed) for seed in given.seeds.split(",")]:
            for run in runs:
                told = f"{run.name}, seed {seed}"
                key = grid.key_of_row(run, given.config, seed, given.scenes)
                if any(row["key"] == key for row in read_rows(rows)):
                    print(f"{told}: has a row", flush=True)
                    continue
                if time.monotonic() - started > 3600 * given.hours:
                    print(f"stopped after {given.hours} hours, before {told}", flush=True)
                    return failed
                print(told, flush=True)
                try:
                    write_row(rows, {"key": key} | measure(run, seed, given, mapped))
                except RunFailed as failure:
                    failed.append(str(failure))
                    print(failure, file=sys.stderr, flush=True)
    return failed


def measure(run: grid.Run, seed: int, given: argparse.Namespace, mapped: Mapped) -> dict[str, Any]:
    """Trains and compares a run; returns its row."""
    config = grid.settled(run, given.config, seed)
    runs = given.out / "runs"
    folder = runs / f"{run.name}-{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    flags = [f"--config.{name}={value}" for name, value in grid.fields_of(run, seed).items()]
    others = [*sorted(runs.iterdir()), *given.share]
    train(FrozenConfigDict(config), [f"--config={given.config}", *flags], folder, others)
    begun = time.monotonic()
    set_cpu_threads()
    prepare_logging(FrozenConfigDict(config))
    points = compare(
        config,
        folder,
        given.out / "scenes",
        make_mesh(**config.mesh),
        count=given.scenes,
        curve=min(given.curve, given.scenes),
        mapped=mapped,
    )
    figured = [figures(point, **margins_of(config)) for point in points]
    keep_points(folder, figured)
    rounds = rounds_of(folder)
    logs = [read_metrics(one / METRICS) for one in rounds]
    accuracy = folder / "reward" / "accuracy.json"
    return {
        "name": run.name,
        "seed": seed,
        "about": run.about,
        "overrides": dict(run.overrides),
        "commit": _commit(),
        "scenes": given.scenes,
        "steps": points[-1].step,
        "seconds": {
            "rl": round(sum(_seconds(log) for log in logs), 1),
            "comparison": round(time.monotonic() - begun, 1),
        },
        "accuracy": json.loads(accuracy.read_text())["rows"] if accuracy.is_file() else [],
        "rewards": _rewards(logs),
        "points": figured,
    }


def _seconds(log: Sequence[Mapping[str, Any]]) -> float:
    """Time of the steps of a training, without start, compilation, samples and checkpoints."""
    each = [line["step_seconds"] for line in log if "step_seconds" in line]
    return statistics.median(each) * log[-1]["step"]


def _rewards(logs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[list[float]]]:
    """ "task/dimension" -> [step, reward] of the training logs of all rounds."""
    found: dict[str, list[list[float]]] = {}
    before = 0
    for log in logs:
        for line in log:
            for name, value in line.items():
                if name.startswith("reward/") and name.count("/") == 2 and math.isfinite(value):
                    curve = found.setdefault(name.removeprefix("reward/"), [])
                    curve.append([before + line["step"], value])
        before += log[-1]["step"]
    return found


def _commit() -> str:
    """The commit of this checkout, with a + where files have changed; "" outside of git."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


if __name__ == "__main__":
    try:
        main(arguments())
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
