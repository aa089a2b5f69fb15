"""Profiles some steps with `jax.profiler`, for TensorBoard's profile page or Perfetto."""

from __future__ import annotations

from pathlib import Path

import jax


class StepTrace:
    """Traces steps `first` to `last`, counted from 1; none if the run resumes after them."""

    def __init__(self, folder: Path, first: int, last: int) -> None:
        """`folder` gets `plugins/profile/<time>/`, with one file per host."""
        self._folder, self._first, self._last = folder, first, last
        self._recording = False

    def before(self, step: int) -> None:
        """Starts the trace before the first step in the range."""
        if not self._recording and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder)
            self._recording = True

    def after(self, step: int, outcome: object) -> None:
        """Stops the trace after the last step, once its `outcome` is ready."""
        if self._recording and step >= self._last:
            jax.block_until_ready(outcome)
            self.close()

    def close(self) -> None:
        """Stops the trace if the loop ends before `last`."""
        if self._recording:
            jax.profiler.stop_trace()
            self._recording = False
