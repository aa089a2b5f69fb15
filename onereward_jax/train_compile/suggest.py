"""`--suggest`: the way to run a stage on a topology that needs the least time per sample and fits.

All ways are reckoned (`estimate`), few compiled: those that surely do not fit are left out, the
others compiled from the fastest on until one fits, without those that need no less than one that
did not. A way fits when the run does: the step, what else the stage does and writes, and on the
same mesh the stages that only use a model, with batches that are halved until there is room.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.device_memory import gib
from onereward_jax.train_compile.estimate import Estimate, estimate
from onereward_jax.train_compile.programs import make_program, make_programs
from onereward_jax.train_compile.report import Report, compile_report
from onereward_jax.train_compile.search_space import RunLayout, candidates
from onereward_jax.train_compile.topology import Topology

MOST_COMPILED = 10
"""Candidates compiled before the search gives up."""

USING = ("candidates", "evaluate")
"""Stages that learn nothing: how many samples they take at a time changes nothing but speed."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was compiled.

    Attributes:
      candidate, estimate: the way.
      report: of its step.
      others: of everything else of the run that was compiled with it.
      batches: config fields with the batches of these.
    """

    candidate: RunLayout
    estimate: Estimate
    report: Report
    others: tuple[Report, ...] = ()
    batches: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the run has room."""
        return self.report.fits and all(one.fits for one in self.others)


def ranked(config: ConfigDict, stage: str, topology: Topology) -> list[tuple[RunLayout, Estimate]]:
    """Candidates that may fit, the fastest first; of equally fast ones the smallest.

    Raises:
      ValueError: fields of the config contradict each other.
    """
    devices = topology.devices()
    alone = config.copy_and_resolve_references()
    alone.update_from_flattened_dict({"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1})
    job = make_program(alone, stage, make_mesh(1, 1, 1, devices=devices[:1]))
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
        trial = Trial(candidate, reckoned, report)
        if report.fits:
            others, batches = compile_others(candidate, config, stage, topology)
            trial = dataclasses.replace(trial, others=tuple(others), batches=batches)
        trials.append(trial)
        if trial.fits or len(trials) == MOST_COMPILED:
            break
    return trials


def compile_candidate(
    candidate: RunLayout, config: ConfigDict, stage: str, topology: Topology
) -> Report:
    """As `train_compile` reports `config` with the candidate's fields."""
    changed = candidate.config(config, stage)
    mesh = make_mesh(**changed.mesh, devices=topology.devices())
    report = compile_report(make_program(changed, stage, mesh), stage, topology, mesh)
    jax.clear_caches()
    return report


def compile_others(
    candidate: RunLayout, config: ConfigDict, stage: str, topology: Topology
) -> tuple[list[Report], dict[str, int]]:
    """What else of a run has to fit on the candidate's mesh, as far as it does.

    Returns:
      Reports, the last one perhaps of what does not fit; the fields that differ from `config`.
    """
    changed = candidate.config(config, stage)
    mesh = make_mesh(**changed.mesh, devices=topology.devices())

    def compiled(other: str, first: int) -> list[Report]:
        jobs = list(make_programs(changed, other, mesh).items())[first:]
        made = []
        for name, job in jobs:
            made.append(compile_report(job, name, topology, mesh))
            jax.clear_caches()
            if not made[-1].fits:
                break
        return made

    reports, batches = compiled(stage, 1), {}
    for other in USING:
        if other == stage or other not in config.stages or not all(one.fits for one in reports):
            continue
        for batch_size in fitting_batches(config[other].batch_size, candidate.parts):
            changed[other].batch_size = batch_size
            made = compiled(other, 0)
            if all(one.fits for one in made):
                break
        reports += made
        if batch_size != config[other].batch_size:
            batches[f"{other}.batch_size"] = batch_size
    return reports, batches


def fitting_batches(batch_size: int, parts: int) -> Iterator[int]:
    """Batches that `parts` devices can share: the wanted one or a little more, then ever less."""
    samples = math.ceil(batch_size / parts)
    while samples:
        yield samples * parts
        samples //= 2


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial that fits."""
    return next((trial for trial in trials if trial.fits), None)


def flags_of(trial: Trial, stage: str) -> str:
    """The flags that make a run like this."""
    fields = trial.candidate.fields(stage) | trial.batches
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())


def print_trials(trials: list[Trial], stage: str, topology: Topology, console: Console) -> None:
    """What was compiled, and the flags to use."""
    capacity = f"of {gib(topology.chip.memory):.1f} GiB"
    table = Table(title=f"{stage} on {topology.name}: what was compiled, {capacity} a device")
    for name in ("data x fsdp x tensor", "batch", "remat", "moments", "GiB", "s/sample", "MFU"):
        table.add_column(name)
    for trial in trials:
        way, report = trial.candidate, trial.report
        fits, needed = report.fits, report.needed
        table.add_row(
            f"{way.data} x {way.fsdp} x {way.tensor}",
            f"{way.batch_size} = {max(way.microbatches, 1)} x {way.parts} x {way.samples}",
            way.remat if way.microbatches else "",
            way.moments,
            f"{gib(needed):.1f}" + ("" if fits else " needed"),
            f"{report.step_seconds / report.batch_size:.2f}" if fits else "",
            f"{report.mfu:.0%}" if fits else "",
        )
    console.print(table)
    for trial in trials:
        for one in trial.others:
            said = "fits" if one.fits else "does not fit"
            console.print(f"{one.stage}, batch {one.batch_size}: {gib(one.needed):.1f} GiB, {said}")
    best = best_of(trials)
    if best is None:
        console.print(f"Nothing of this fits on {topology.name}.")
    else:
        console.print(flags_of(best, stage), soft_wrap=True, highlight=False)
