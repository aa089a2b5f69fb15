"""Terminal output of a run: one line per event, one bar per loop, on process 0 only."""

from __future__ import annotations

import sys
import threading
import time

from tqdm import tqdm

from onereward_jax.parallel.compilation_cache import add_first_seconds, usual_first_seconds
from onereward_jax.parallel.distributed import is_writer

LOG_SECONDS = 20.0
"""Interval of progress lines in a log file; a terminal gets a bar that updates in place."""


def announce(message: str) -> None:
    """Prints one line (process 0 only)."""
    if is_writer():
        print(message, flush=True)


class ProgressBar(tqdm):
    """A bar that shows "compiling, usually 94 s" and the elapsed time until its first update."""

    def __init__(
        self, description: str, total: int, initial: int, unit: str, program: str | None
    ) -> None:
        """See `progress_bar`."""
        self._program = program if initial < total else None
        self._first_update = threading.Event()
        self._opened = time.monotonic()
        super().__init__(
            desc=description,
            total=total,
            initial=initial,
            unit=unit,
            disable=not is_writer(),
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else LOG_SECONDS,
            postfix=None if self._program is None else compiling(self._program),
        )
        if self._program is not None and not self.disable and sys.stderr.isatty():
            threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def update(self, n: int = 1) -> bool | None:
        """Advances the bar by `n` units."""
        if n and self._program is not None and not self._first_update.is_set():
            self._first_update.set()
            if not self.disable:
                add_first_seconds(self._program, time.monotonic() - self._opened)
                self.set_postfix_str("", refresh=False)
        return super().update(n)

    def close(self) -> None:
        """Closes the bar, leaving it on screen; called on leaving `with`."""
        self._first_update.set()
        super().close()

    def _tick(self) -> None:
        while not self._first_update.wait(1.0):
            self.refresh()


def progress_bar(
    description: str,
    total: int,
    *,
    initial: int = 0,
    unit: str = "step",
    program: str | None = None,
) -> ProgressBar:
    """A progress bar; use it with `with` and `bar.update(n)`. Shown on process 0 only.

    Args:
      description: label of the bar.
      total: total number of units.
      initial: number of units completed before a resume.
      unit: name of a unit.
      program: name of the program that is compiled before the first unit completes; its compile
        time on this machine is stored under this name. None: nothing is compiled.
    """
    return ProgressBar(description, total, initial, unit, program)


def compiling(program: str) -> str:
    """Text of a bar until the first unit completes."""
    usual = usual_first_seconds(program)
    return "compiling, usually " + ("under five minutes" if usual is None else f"{usual:.0f} s")
