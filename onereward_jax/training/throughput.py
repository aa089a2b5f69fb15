"""Performance metrics of a training run: step time, data wait, compile time, memory, MFU, goodput.

Called by the train loop. They add no device synchronization to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from jax import monitoring

from onereward_jax.training.host_memory import memory_peak
from onereward_jax.training.profiler import StepTrace

COMPILATION = "/jax/core/compile/backend_compile_duration"
"""JAX's monitoring event of a compilation, or of a hit in the compilation cache."""

Row = Mapping[str, float | int]


class Throughput:
    """Performance metrics of one training run in one process."""

    def __init__(
        self,
        *,
        started: float | None = None,
        history: Sequence[Row] = (),
        ideal_step_seconds: float | None = None,
        trace: StepTrace | None = None,
    ) -> None:
        """
        Args:
          started: start time of the stage in this process (`time.time()`); None: now.
          history: log rows of earlier processes, including lost steps.
          ideal_step_seconds: model FLOPs of a step over peak FLOP/s of all devices, for MFU; None
            if unknown.
          trace: the steps to profile.
        """
        self._started = time.time() if started is None else started
        self._history = [row for row in history if "elapsed_seconds" in row]
        self._ideal = ideal_step_seconds
        self._trace = trace
        self._compile_seconds = 0.0
        self._useful = 0.0
        self._last: Any = None
        self._restart_clocks(0)

    @contextmanager
    def running(self, step: int) -> Iterator[None]:
        """Context of the train loop, which starts after `step`."""
        kept = [row for row in self._history if row["step"] <= step]
        self._useful = kept[-1]["goodput"] * kept[-1]["elapsed_seconds"] if kept else 0.0
        monitoring.register_event_duration_secs_listener(self._on_event)
        self._restart_clocks(step)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(self._on_event)
            if self._trace is not None:
                self._trace.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context of fetching a batch; counts as data wait only if the device is idle."""
        begin = time.monotonic()
        yield
        if self._last is None or self._last.is_ready():
            self._waited += time.monotonic() - begin

    def run(self, step: Callable[..., Any], number: int, *arguments: Any) -> Any:
        """Calls step `number`; a call that compiles is excluded from the step time."""
        if self._trace is not None:
            self._trace.before(number)
        compiled, begin = self._compile_seconds, time.monotonic()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            state, measured = step(*arguments)
        if self._compile_seconds > compiled:
            self._paused += time.monotonic() - begin
        self._last = measured["refused"].total
        if self._trace is not None:
            self._trace.after(number, self._last)
        return state, measured

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Context of other work in the loop that blocks on the device, e.g. a checkpoint."""
        jax.block_until_ready(self._last)
        begin = time.monotonic()
        yield
        self._paused += time.monotonic() - begin

    def first_step(self) -> str:
        """Waits for the step; tells what lay before it."""
        jax.block_until_ready(self._last)
        took = time.monotonic() - self._since
        return (
            f"first step done {time.time() - self._started:.1f} s after the start of the stage; it "
            f"took {took:.1f} s, {self._compile_seconds:.1f} s of them compiling"
        )

    def read(self, step: int) -> dict[str, float]:
        """The metrics since the last call; the device must be done with `step`.

        Returns:
          step_seconds: per step, including data; data_wait_seconds: the part of it with an idle
          device; compile_seconds: of this process so far; mfu; device_memory_gib or
          host_memory_gib: peak so far; time: Unix time in seconds; elapsed_seconds: since the stage
          was first started; goodput: fraction of them spent in steps that count, without loading,
          compiling, waiting, checkpoints, sample images, steps lost to a crash and the time between
          a stop and the next start.
        """
        steps, now = step - self._steps_before, time.time()
        stepping = time.monotonic() - self._since - self._paused
        self._useful += stepping - self._waited
        elapsed = now - self.first_start()
        ideal = {} if self._ideal is None else {"mfu": self._ideal * steps / stepping}
        row = {
            "step_seconds": stepping / steps,
            "data_wait_seconds": self._waited / steps,
            "compile_seconds": self._compile_seconds,
            **ideal,
            **memory_peak(),
            "time": now,
            "elapsed_seconds": elapsed,
            "goodput": self._useful / elapsed,
        }
        self._restart_clocks(step)
        return row

    def first_start(self) -> float:
        """`time.time()` at the start of the first process, from any row of the history."""
        earlier = [row["time"] - row["elapsed_seconds"] for row in self._history]
        return min([self._started, *earlier])

    def _restart_clocks(self, step: int) -> None:
        self._steps_before, self._since = step, time.monotonic()
        self._waited = self._paused = 0.0

    def _on_event(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILATION:
            self._compile_seconds += seconds


def format_row(row: Row) -> str:
    """Formats the performance metrics of a log row, for a progress bar."""
    said = [f"loss {row['loss']:.4f}"] if "loss" in row else []
    said.append(f"{row['step_seconds']:.2f} s/step")
    said.append(f"data {row['data_wait_seconds']:.2f} s")
    said.append(f"compiled {row['compile_seconds']:.0f} s")
    if "mfu" in row:
        said.append(f"MFU {row['mfu']:.1%}")
    memory = next(name for name in ("device_memory_gib", "host_memory_gib") if name in row)
    said.append(f"{row[memory]:.1f} GiB")
    said.append(f"goodput {row['goodput']:.0%}")
    return ", ".join(said)
