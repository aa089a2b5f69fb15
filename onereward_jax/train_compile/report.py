"""Compile a job for a topology and report memory, FLOPs and collectives, as a table or JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from onereward_jax.train_compile.chips import CHIPS, measured_mfu
from onereward_jax.train_compile.device_memory import (
    SHOWN_BUFFERS,
    Memory,
    Shortage,
    gib,
    memory_of,
    shortage_of,
)
from onereward_jax.train_compile.hlo import Traffic, collective_traffic, largest_arrays
from onereward_jax.train_compile.job import Job
from onereward_jax.train_compile.saving import Saving, bytes_per_device, saving_of
from onereward_jax.train_compile.topology import Topology
from onereward_jax.train_compile.traced_arrays import largest_arrays_of
from onereward_jax.training.count_jaxpr_flops import count_flops

EFFORT = "O1"
"""Skips the search for the fastest code, which takes half of a compilation and more. Memory and
collectives come out no smaller: 46 MB instead of 36 MB for the mini config."""

CUBLAS = {"xla_gpu_enable_triton_gemm": False}
"""Use cuBLAS: without a GPU to autotune on, XLA's Triton kernels for matrix products fail at some
shapes."""


@dataclasses.dataclass(frozen=True)
class Report:
    """A function on one topology. Sizes in bytes on one device, times in seconds.

    Attributes:
      stage: name of the job.
      topology, slices, devices, mesh: the devices that it is compiled for.
      batch_size: samples per call, over all devices.
      capacity: memory of a device.
      memory: memory use of the function; None if the compiler failed before it planned memory.
      resident: size of the arrays on the device that are no arguments of the function.
      saving: memory for saving the trained model; None if none is saved.
      shortage: the out-of-memory error; None if the function fits.
      flops: matrix operations on one device, as traced.
      int8: those of them that are products of int8.
      model_flops: the same without recomputation; 0 if not computed.
      collectives: kind -> traffic; empty if the compiler failed.
      compute_seconds: time of `flops` at the chip's peak.
      link_seconds: time of all collectives at the full bandwidth of a device's links.
      step_seconds: the longer of both, the roofline's lower bound.
      mfu: time of `model_flops` at the chip's peaks, divided by `step_seconds`.
      measured_mfu: MFU that such models reach, see `chips.MEASURED_MFU`.
      likely_seconds: see `likely_seconds`; 0 if `model_flops` is not computed.
      compile_seconds: compile time.
    """

    stage: str
    topology: str
    slices: int
    devices: int
    mesh: dict[str, int]
    batch_size: int
    capacity: float
    memory: Memory | None
    resident: int
    saving: Saving | None
    shortage: Shortage | None
    flops: float
    int8: float
    model_flops: float
    collectives: dict[str, Traffic]
    compute_seconds: float
    link_seconds: float
    step_seconds: float
    mfu: float
    measured_mfu: float
    likely_seconds: float
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether both the function and the saving of the trained model fit."""
        saves = self.saving is None or self.saving.peak <= self.capacity
        return self.shortage is None and saves

    @property
    def needed(self) -> int:
        """Peak memory of a device in bytes, over running the function and saving the model."""
        saving = 0 if self.saving is None else self.saving.peak
        if self.shortage is None:
            running = self.memory.peak + self.resident
        else:
            running = self.shortage.needed
        return max(running, saving)

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary for JSON, with `fits`."""
        return {"fits": self.fits, **dataclasses.asdict(self)}


def compile_report(job: Job, stage: str, topology: Topology, mesh: Mesh) -> Report:
    """Compiles `job` for `topology`.

    Args:
      job: the function and its abstract arguments.
      stage: name of the job in the report.
      topology: the devices.
      mesh: a mesh of the topology's devices.

    Raises:
      ValueError: config fields contradict each other or the mesh.
    """
    traced = job.function.trace(*job.arguments)
    flops = count_flops(traced.jaxpr.jaxpr, job.assumptions) / mesh.size
    only = dataclasses.replace(job.assumptions, only_int8=True)
    int8 = count_flops(traced.jaxpr.jaxpr, only) / mesh.size
    lowered = traced.lower()
    start = time.perf_counter()
    memory, shortage, collectives = None, None, {}
    resident = bytes_per_device(job.resident)
    # `compiler_options` differ: jax 0.10 takes a number for the effort, jax 0.12 the level's name.
    jax.config.update("jax_optimization_level", EFFORT)
    options = CUBLAS if topology.chip.platform == "cuda" else {}
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
        if memory.peak + resident > chip.memory:
            # The GPU compiler does not check the capacity, and no compiler knows `resident`.
            shortage = Shortage(memory.peak + resident, largest_arrays(text, SHOWN_BUFFERS))
    saving = None if job.written is None else saving_of(job.written, options)
    compute = chip.seconds(flops, int8)
    links = sum(traffic.bytes for traffic in collectives.values()) / topology.link_bandwidth
    step = max(compute, links)
    minimum = job.model_flops / mesh.size
    peak = chip.seconds(minimum, int8) if minimum else 0.0
    generation = topology.name.partition(":")[0]
    return Report(
        stage=stage,
        topology=topology.name,
        slices=topology.slices,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        batch_size=job.batch_size,
        capacity=chip.memory,
        memory=memory,
        resident=resident,
        saving=saving,
        shortage=shortage,
        flops=flops,
        int8=int8,
        model_flops=minimum,
        collectives=collectives,
        compute_seconds=compute,
        link_seconds=links,
        step_seconds=step,
        mfu=peak / step,
        measured_mfu=measured_mfu(generation),
        likely_seconds=likely_seconds(generation, minimum, step, int8) if minimum else 0.0,
        compile_seconds=seconds,
    )


def likely_seconds(generation: str, model_flops: float, bound: float, int8: float = 0.0) -> float:
    """Seconds to plan with: `model_flops` of a device at the measured MFU, at least `bound`.

    `int8` of them are products of int8: nobody has measured what MFU these reach here.
    """
    peak = CHIPS[generation].seconds(model_flops, int8)
    return max(peak / measured_mfu(generation), bound)


def print_report(report: Report, console: Console) -> None:
    """Prints the report as a table; if the function does not fit, also the largest buffers."""
    shape = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
    slices = f", {report.slices} slices" if report.slices > 1 else ""
    table = Table("per device", "", title=f"{report.stage} on {report.topology}{slices}")
    table.add_row("mesh", f"{report.devices} devices: {shape}")
    table.add_row("batch", f"{report.batch_size} samples over all devices")
    for name, value in _memory_rows(report):
        table.add_row(name, value)
    table.add_row("operations", f"{report.flops / 1e12:,.1f} TFLOP a step")
    if report.int8:
        table.add_row("  in int8", f"{report.int8 / 1e12:,.1f} of them")
    if report.model_flops:
        ratio, minimum = report.flops / report.model_flops, report.model_flops / 1e12
        table.add_row("at least", f"{minimum:,.1f} TFLOP; the step has {ratio:.2f} times as many")
    for kind, traffic in report.collectives.items():
        total = f"{gib(traffic.bytes):,.2f} GiB in {traffic.calls:,.0f} calls"
        table.add_row(kind, f"{total}, the largest {gib(traffic.largest):.3f} GiB")
    if report.shortage is None:
        table.add_row("compute", f"{report.compute_seconds:.2f} s at the peak")
        table.add_row("links", f"{report.link_seconds:.2f} s at full speed")
        share = f", MFU {report.mfu:.1%} then" if report.mfu else ""
        table.add_row("step", f"at least {report.step_seconds:.2f} s{share}")
        if report.likely_seconds:
            likely = f"about {report.likely_seconds:.2f} s, at a measured MFU of"
            table.add_row("  to plan with", f"{likely} {report.measured_mfu:.0%}")
    table.add_row("compiled in", f"{report.compile_seconds:.0f} s")
    console.print(table)
    if report.shortage is not None:
        lines = ("The largest buffers:", *report.shortage.buffers)
        console.print(*lines, sep="\n  ", markup=False, soft_wrap=True)


def print_summary(reports: Sequence[Report], console: Console) -> None:
    """Prints a table of all functions of a run: memory, and whether each fits."""
    first = reports[0]
    table = Table(title=f"The run on {first.topology}: of {gib(first.capacity):.2f} GiB a device")
    for name in ("function", "batch", "GiB", "saving, GiB", ""):
        table.add_column(name)
    for report in reports:
        running = report.memory.peak + report.resident if report.memory else report.shortage.needed
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
            ("memory", f"fits: peak {gib(memory.peak + report.resident):.2f} GiB of {capacity}"),
            ("  arguments", f"{gib(memory.arguments):.2f} GiB"),
            ("  temporaries", f"{gib(memory.temporaries):.2f} GiB"),
            ("  new outputs", f"{gib(memory.outputs):.2f} GiB"),
        ]
        if report.resident:
            rows.append(("  other arrays", f"{gib(report.resident):.2f} GiB"))
    if (saving := report.saving) is not None:
        fits = "fits" if saving.peak <= report.capacity else "does not fit"
        parts = f"{gib(saving.stays):.2f} GiB stay, {gib(saving.temporary):.3f} GiB temporary"
        rows.append(("saving", f"{fits}: peak {gib(saving.peak):.2f} GiB; {parts}"))
    return rows
