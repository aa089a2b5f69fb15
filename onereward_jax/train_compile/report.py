"""Compile a job for a topology and tell what it takes, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from onereward_jax.train_compile.device_memory import (
    SHOWN_BUFFERS,
    Memory,
    Shortage,
    gib,
    memory_of,
    shortage_of,
)
from onereward_jax.train_compile.hlo import Traffic, collective_traffic, largest_arrays
from onereward_jax.train_compile.programs import Job
from onereward_jax.train_compile.saving import Saving, held, saving_of
from onereward_jax.train_compile.topology import Topology
from onereward_jax.train_compile.traced_arrays import largest_arrays_of
from onereward_jax.training.flop_counter import count_flops

EFFORT = {"exec_time_optimization_effort": -1.0}
"""Skips the search for the fastest code, which takes most of a compilation and changes neither
what is held in memory nor what is sent."""

CUBLAS = {"xla_gpu_enable_triton_gemm": False}
"""XLA's own kernels for products fail at some shapes when there is no GPU to try tiles on."""


@dataclasses.dataclass(frozen=True)
class Report:
    """A function on one topology. Sizes in bytes on one device, times in seconds.

    Attributes:
      stage, topology, slices, devices, mesh, batch_size: what was compiled for what.
      capacity: memory of a device.
      memory: what the function takes; None where the compiler gives up before it has a plan.
      beside: of arrays that lie there meanwhile and are no arguments.
      saving: what writing the trained model takes afterwards; None where there is none to write.
      shortage: what the function lacks, when it does not fit.
      flops: operations of matrix units on one device, as traced.
      model_flops: the same with nothing computed twice; 0 where it is not reckoned.
      collectives: kind -> traffic; empty when it does not fit.
      compute_seconds: of `flops` at the chip's peak.
      link_seconds: of all collectives at the full speed of a device's links.
      step_seconds: the longer of both, the roofline's bound from below.
      mfu: share of the peak that `model_flops` use if a step takes `step_seconds`.
      compile_seconds: of the compiler.
    """

    stage: str
    topology: str
    slices: int
    devices: int
    mesh: dict[str, int]
    batch_size: int
    capacity: float
    memory: Memory | None
    beside: int
    saving: Saving | None
    shortage: Shortage | None
    flops: float
    model_flops: float
    collectives: dict[str, Traffic]
    compute_seconds: float
    link_seconds: float
    step_seconds: float
    mfu: float
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether there is room for the function, and for saving what it has trained."""
        saves = self.saving is None or self.saving.peak <= self.capacity
        return self.shortage is None and saves

    @property
    def needed(self) -> int:
        """Most that is held of a device's memory, while the function runs or afterwards."""
        saving = 0 if self.saving is None else self.saving.peak
        running = self.memory.peak + self.beside if self.shortage is None else self.shortage.needed
        return max(running, saving)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"fits": self.fits, **dataclasses.asdict(self)}


def compile_report(job: Job, stage: str, topology: Topology, mesh: Mesh) -> Report:
    """Compiles `job`, which is called `stage`, for `topology`.

    Raises:
      ValueError: fields of the config contradict each other or the mesh.
    """
    traced = job.function.trace(*job.arguments)
    flops = count_flops(traced.jaxpr.jaxpr, job.assumptions) / mesh.size
    lowered = traced.lower()
    start = time.perf_counter()
    memory, shortage, collectives = None, None, {}
    beside = held(job.beside)
    options = EFFORT | CUBLAS if topology.chip.platform == "cuda" else EFFORT
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        shortage = shortage_of(str(error))
        if shortage is None:
            raise
        if not shortage.buffers:
            buffers = largest_arrays_of(traced.jaxpr.jaxpr, SHOWN_BUFFERS)
            shortage = dataclasses.replace(shortage, buffers=buffers)
    seconds = time.perf_counter() - start
    chip = topology.chip
    if shortage is None:
        memory, text = memory_of(compiled), compiled.as_text()
        collectives = collective_traffic(text, job.assumptions.loop_trips)
        if memory.peak + beside > chip.memory:
            # the compiler for GPUs does not mind, and none knows of what lies there besides
            shortage = Shortage(memory.peak + beside, largest_arrays(text, SHOWN_BUFFERS))
    saving = None if job.written is None else saving_of(job.written, options)
    compute = flops / chip.flops
    links = sum(traffic.bytes for traffic in collectives.values()) / topology.link_bandwidth
    step = max(compute, links)
    minimum = job.model_flops / mesh.size
    return Report(
        stage=stage,
        topology=topology.name,
        slices=topology.slices,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        batch_size=job.batch_size,
        capacity=chip.memory,
        memory=memory,
        beside=beside,
        saving=saving,
        shortage=shortage,
        flops=flops,
        model_flops=minimum,
        collectives=collectives,
        compute_seconds=compute,
        link_seconds=links,
        step_seconds=step,
        mfu=minimum / chip.flops / step,
        compile_seconds=seconds,
    )


def print_report(report: Report, console: Console) -> None:
    """The report as tables; for a function that does not fit, the largest buffers."""
    shape = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
    slices = f", {report.slices} slices" if report.slices > 1 else ""
    table = Table("per device", "", title=f"{report.stage} on {report.topology}{slices}")
    table.add_row("mesh", f"{report.devices} devices: {shape}")
    table.add_row("batch", f"{report.batch_size} samples over all devices")
    for name, value in _memory_rows(report):
        table.add_row(name, value)
    table.add_row("operations", f"{report.flops / 1e12:,.1f} TFLOP a step")
    if report.model_flops:
        ratio, minimum = report.flops / report.model_flops, report.model_flops / 1e12
        table.add_row("at least", f"{minimum:,.1f} TFLOP; it does {ratio:.2f} times as many")
    for kind, traffic in report.collectives.items():
        said = f"{gib(traffic.bytes):,.2f} GiB in {traffic.calls:,.0f} calls"
        table.add_row(kind, f"{said}, the largest {gib(traffic.largest):.3f} GiB")
    if report.shortage is None:
        table.add_row("compute", f"{report.compute_seconds:.2f} s at the peak")
        table.add_row("links", f"{report.link_seconds:.2f} s at full speed")
        share = f", MFU {report.mfu:.1%} then" if report.mfu else ""
        table.add_row("step", f"at least {report.step_seconds:.2f} s{share}")
    table.add_row("compiled in", f"{report.compile_seconds:.0f} s")
    console.print(table)
    if report.shortage is not None:
        lines = ("The largest buffers:", *report.shortage.buffers)
        console.print(*lines, sep="\n  ", markup=False, soft_wrap=True)


def print_summary(reports: Sequence[Report], console: Console) -> None:
    """All functions of a run, a line each, and whether the run fits."""
    first = reports[0]
    table = Table(title=f"The run on {first.topology}: of {gib(first.capacity):.2f} GiB a device")
    for name in ("function", "batch", "GiB", "saving, GiB", ""):
        table.add_column(name)
    for report in reports:
        running = report.memory.peak + report.beside if report.memory else report.shortage.needed
        table.add_row(
            report.stage,
            str(report.batch_size),
            f"{gib(running):.2f}" if running else "",
            f"{gib(report.saving.peak):.2f}" if report.saving else "",
            "fits" if report.fits else "does not fit",
        )
    console.print(table)


def _memory_rows(report: Report) -> list[tuple[str, str]]:
    capacity = f"{gib(report.capacity):.2f} GiB"
    if report.shortage is not None:
        needed = gib(report.shortage.needed)
        rows = [("memory", f"does not fit: {needed:.2f} GiB needed of {capacity}")]
    else:
        memory = report.memory
        rows = [
            ("memory", f"fits: peak {gib(memory.peak + report.beside):.2f} GiB of {capacity}"),
            ("  arguments", f"{gib(memory.arguments):.2f} GiB"),
            ("  temporaries", f"{gib(memory.temporaries):.2f} GiB"),
            ("  new outputs", f"{gib(memory.outputs):.2f} GiB"),
        ]
        if report.beside:
            rows.append(("  kept besides", f"{gib(report.beside):.2f} GiB"))
    if (saving := report.saving) is not None:
        fits = "fits" if saving.peak <= report.capacity else "does not fit"
        parts = f"{gib(saving.stays):.2f} GiB stay, {gib(saving.beside):.3f} GiB pass"
        rows.append(("saving", f"{fits}: peak {gib(saving.peak):.2f} GiB; {parts}"))
    return rows
