"""`--suggest`: the way to run a stage on a topology that needs the least time per sample and fits.

All ways are reckoned (`estimate`), few compiled: those that surely do not fit are left out, the
others compiled from the fastest on until one fits, without those that need no less than one that
did not.
"""

from __future__ import annotations

import dataclasses

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.candidates import Candidate, candidates
from onereward_jax.train_compile.estimate import Estimate, estimate
from onereward_jax.train_compile.jobs import make_job
from onereward_jax.train_compile.memory import gib
from onereward_jax.train_compile.report import Report, compile_report
from onereward_jax.train_compile.topology import Topology

MOST_COMPILED = 10
"""Candidates compiled before the search gives up."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was compiled."""

    candidate: Candidate
    estimate: Estimate
    report: Report


def ranked(config: ConfigDict, stage: str, topology: Topology) -> list[tuple[Candidate, Estimate]]:
    """Candidates that may fit, the fastest first; of equally fast ones the smallest.

    Raises:
      ValueError: fields of the config contradict each other.
    """
    devices = topology.devices()
    alone = config.copy_and_resolve_references()
    alone.update_from_flattened_dict({"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1})
    job = make_job(alone, stage, make_mesh(1, 1, 1, devices=devices[:1]))
    ways = candidates(config, stage, len(devices), topology.slices)
    reckoned = [(way, estimate(job, way, topology)) for way in ways]
    possible = [pair for pair in reckoned if pair[1].memory <= topology.chip.memory]
    return sorted(possible, key=lambda pair: (pair[1].sample_seconds, pair[1].memory))


def search(config: ConfigDict, stage: str, topology: Topology) -> list[Trial]:
    """Compiles candidates until one fits; the last trial is the one, if any is.

    Raises:
      ValueError: fields of the config contradict each other.
    """
    trials: list[Trial] = []
    for candidate, reckoned in ranked(config, stage, topology):
        if any(candidate.needs_no_less(trial.candidate) for trial in trials):
            continue
        report = compile_candidate(candidate, config, stage, topology)
        trials.append(Trial(candidate, reckoned, report))
        if report.fits or len(trials) == MOST_COMPILED:
            break
    return trials


def compile_candidate(
    candidate: Candidate, config: ConfigDict, stage: str, topology: Topology
) -> Report:
    """As `train_compile` reports `config` with the candidate's fields."""
    changed = candidate.config(config, stage)
    mesh = make_mesh(**changed.mesh, devices=topology.devices())
    report = compile_report(make_job(changed, stage, mesh), stage, topology, mesh)
    jax.clear_caches()
    return report


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial that fits."""
    return next((trial for trial in trials if trial.report.fits), None)


def flags_of(candidate: Candidate, stage: str) -> str:
    """The flags that make a run like this."""
    fields = candidate.fields(stage).items()
    return " ".join(f"--config.{name}={value}" for name, value in fields)


def print_trials(trials: list[Trial], stage: str, topology: Topology, console: Console) -> None:
    """What was compiled, and the flags to use."""
    capacity = f"of {gib(topology.chip.memory):.1f} GiB"
    table = Table(title=f"{stage} on {topology.name}: what was compiled, {capacity} a device")
    for name in ("data x fsdp x tensor", "batch", "remat", "moments", "GiB", "s/sample", "MFU"):
        table.add_column(name)
    for trial in trials:
        way, report = trial.candidate, trial.report
        fits, needed = report.fits, report.memory.peak if report.fits else report.shortage.needed
        table.add_row(
            f"{way.data} x {way.fsdp} x {way.tensor}",
            f"{way.batch_size} = {max(way.accumulate, 1)} x {way.parts} x {way.samples}",
            way.remat if way.accumulate else "",
            way.moments,
            f"{gib(needed):.1f}" + ("" if fits else " needed"),
            f"{report.step_seconds / report.batch_size:.2f}" if fits else "",
            f"{report.mfu:.0%}" if fits else "",
        )
    console.print(table)
    best = best_of(trials)
    if best is None:
        console.print(f"Nothing of this fits on {topology.name}.")
    else:
        console.print(flags_of(best.candidate, stage), soft_wrap=True, highlight=False)
