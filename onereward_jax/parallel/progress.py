"""What a run says on the terminal: one line per event, one bar per loop, from process 0 only."""

from __future__ import annotations

import sys
import threading
import time

from tqdm import tqdm

from onereward_jax.parallel.compilation_cache import add_first_seconds, usual_first_seconds
from onereward_jax.parallel.distributed import is_writer

LOG_SECONDS = 20.0
"""A log file cannot overwrite: it gets a line of a bar this often. A terminal gets a living bar."""


def announce(message: str) -> None:
    """Print one line (process 0 only)."""
    if is_writer():
        print(message, flush=True)


class ProgressBar(tqdm):
    """A bar that says "compiling, usually 94 s" until its first update, and its clock goes on."""

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
        """`n` more units are done."""
        if n and self._program is not None and not self._first_update.is_set():
            self._first_update.set()
            if not self.disable:
                add_first_seconds(self._program, time.monotonic() - self._opened)
                self.set_postfix_str("", refresh=False)
        return super().update(n)

    def close(self) -> None:
        """Leaves the bar as it is; called by `with`."""
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
    """A bar to be used with `with` and `bar.update(n)`; silent on all processes but 0.

    Args:
      description: what is going on.
      total: how many units there are in all.
      initial: how many were done by an earlier, interrupted run.
      unit: what is counted.
      program: names what is compiled before the first unit is done, to remember how long that
        takes on this machine; None where nothing is.
    """
    return ProgressBar(description, total, initial, unit, program)


def compiling(program: str) -> str:
    """What a bar says before the first unit is done."""
    usual = usual_first_seconds(program)
    return "compiling, usually " + ("under five minutes" if usual is None else f"{usual:.0f} s")
