"""`--suggest`: the layout that fits on a topology and needs the least time per sample.

All layouts are estimated (`estimate`). Those whose estimated memory exceeds the device are dropped.
The others are compiled, the fastest first, until one fits; layouts that need at least the memory of
one that failed are skipped. A layout fits if the whole run fits: the step, the other functions of
the stage, saving its model and, on the same mesh, the stages that only run a model. The batch sizes
of those are halved until they fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console
from rich.table import Table

from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.mesh import MESH_AXES
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.stages.rl_settings import check_rollout_int8
from onereward_jax.train_compile.device_memory import gib
from onereward_jax.train_compile.estimate import Estimate, estimate
from onereward_jax.train_compile.job import Job
from onereward_jax.train_compile.programs import make_program, make_programs
from onereward_jax.train_compile.report import Report, compile_report
from onereward_jax.train_compile.search_space import RunLayout, candidates
from onereward_jax.train_compile.topology import Topology

MOST_COMPILED = 10
"""Most candidates that the search compiles."""

USING = ("candidates", "evaluate")
"""Stages that train nothing: their batch size changes speed only."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was compiled.

    Attributes:
      candidate, estimate: the layout and its estimate.
      report: report of its step.
      others: reports of the other functions of the run that were compiled with it.
      batches: config field -> batch size, for those that differ from the config.
    """

    candidate: RunLayout
    estimate: Estimate
    report: Report
    others: tuple[Report, ...] = ()
    batches: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the whole run fits."""
        return self.report.fits and all(one.fits for one in self.others)


def ranked(config: ConfigDict, stage: str, topology: Topology) -> list[tuple[RunLayout, Estimate]]:
    """Candidates that may fit, the fastest first; at equal time, the one with least memory first.

    Raises:
      ValueError: config fields contradict each other.
    """
    devices = topology.devices()
    job = _on_one_device(config, stage, topology)
    layouts = candidates(config, stage, len(devices), topology.slices)
    estimated = [(layout, estimate(job, layout, topology)) for layout in layouts]
    possible = [pair for pair in estimated if pair[1].memory <= topology.chip.memory]
    return sorted(possible, key=lambda pair: (pair[1].sample_seconds, pair[1].memory))


def search(config: ConfigDict, stage: str, topology: Topology) -> list[Trial]:
    """Compiles candidates until one fits. Only the last trial can be one that fits.

    Raises:
      ValueError: config fields contradict each other.
    """
    trials: list[Trial] = []
    layouts = ranked(config, stage, topology)
    with progress_bar("search", MOST_COMPILED, unit="layout", program="train_compile") as bar:
        for candidate, estimated in layouts:
            if any(candidate.needs_no_less(trial.candidate) for trial in trials):
                continue
            report = compile_candidate(candidate, config, stage, topology)
            trial = Trial(candidate, estimated, report)
            if report.fits:
                others, batches = compile_others(candidate, config, stage, topology)
                trial = dataclasses.replace(trial, others=tuple(others), batches=batches)
            trials.append(trial)
            bar.update()
            if trial.fits or len(trials) == MOST_COMPILED:
                break
    return trials


def compile_candidate(
    candidate: RunLayout, config: ConfigDict, stage: str, topology: Topology
) -> Report:
    """The report of the stage's step, with the candidate's fields in `config`."""
    changed = candidate.config(config, stage)
    mesh = make_mesh(**changed.mesh, devices=topology.devices())
    report = compile_report(make_program(changed, stage, mesh), stage, topology, mesh)
    jax.clear_caches()
    return report


def compile_others(
    candidate: RunLayout, config: ConfigDict, stage: str, topology: Topology
) -> tuple[list[Report], dict[str, int]]:
    """Compiles the other functions of a run on the candidate's mesh, until one does not fit.

    Returns:
      The reports; config field -> batch size, for those that differ from `config`.
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
    """Multiples of `parts`: `batch_size` rounded up, then about half of the last one each time."""
    samples = math.ceil(batch_size / parts)
    while samples:
        yield samples * parts
        samples //= 2


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial that fits; None if there is none."""
    return next((trial for trial in trials if trial.fits), None)


def flags_of(trial: Trial, stage: str) -> str:
    """The command-line flags that set the fields of the trial."""
    fields = trial.candidate.fields(stage) | trial.batches
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())


def print_trials(trials: list[Trial], stage: str, topology: Topology, console: Console) -> None:
    """Prints what was compiled, and the flags to use."""
    capacity = f"of {gib(topology.chip.memory):.1f} GiB"
    table = Table(title=f"{stage} on {topology.name}: what was compiled, {capacity} per device")
    for name in (" x ".join(MESH_AXES), "batch", "remat", "moments", "GiB", "s/sample", "MFU"):
        table.add_column(name)
    for trial in trials:
        layout, report = trial.candidate, trial.report
        fits, needed = report.fits, report.needed
        table.add_row(
            " x ".join(map(str, layout.mesh.values())),
            f"{layout.batch_size} = "
            f"{max(layout.microbatches, 1)} x {layout.parts} x {layout.samples}",
            layout.remat if layout.microbatches else "",
            layout.moments,
            f"{gib(needed):.1f}" + ("" if fits else " needed"),
            f"{report.step_seconds / report.batch_size:.2f}" if fits else "",
            f"{report.mfu:.0%}" if fits else "",
        )
    console.print(table)
    for trial in trials:
        for one in trial.others:
            fits = "fits" if one.fits else "does not fit"
            console.print(f"{one.stage}, batch {one.batch_size}: {gib(one.needed):.1f} GiB, {fits}")
    best = best_of(trials)
    if best is None:
        console.print(f"None of these fits on {topology.name}.")
    else:
        console.print(flags_of(best, stage), soft_wrap=True, highlight=False)


def int8_share(
    config: ConfigDict, stage: str, topology: Topology, layout: RunLayout
) -> float | None:
    """Estimated time of a step with `rl.rollout_int8`, relative to the same step without.

    None for other stages, for methods without such rollouts, on chips that multiply int8 no faster
    than bfloat16, and if the config has it already.
    """
    chip = topology.chip
    if stage != "rl" or config.rl.rollout_int8 or chip.int8 <= chip.flops:
        return None
    changed = config.copy_and_resolve_references()
    changed.rl.rollout_int8 = True
    try:
        check_rollout_int8(FrozenConfigDict(changed))
    except ValueError:
        return None
    seconds = [
        estimate(_on_one_device(one, stage, topology), layout, topology).sample_seconds
        for one in (config, changed)
    ]
    return seconds[1] / seconds[0]


def _on_one_device(config: ConfigDict, stage: str, topology: Topology) -> Job:
    """The job that estimates start from."""
    alone = config.copy_and_resolve_references()
    alone.update_from_flattened_dict({f"mesh.{name}": 1 for name in MESH_AXES})
    return make_program(alone, stage, make_mesh(1, 1, 1, devices=topology.devices()[:1]))
