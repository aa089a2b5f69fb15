"""What a run says on the terminal: one line per event, one bar per loop, from process 0 only."""

from __future__ import annotations

import sys

from tqdm import tqdm

from onereward_jax.parallel import is_writer


def announce(message: str) -> None:
    """Print one line (process 0 only)."""
    if is_writer():
        print(message, flush=True)


def progress_bar(description: str, total: int, *, initial: int = 0, unit: str = "step") -> tqdm:
    """A bar to be used with `with` and `bar.update(n)`; silent on all processes but 0.

    Args:
      description: what is going on.
      total: how many units there are in all.
      initial: how many were done by an earlier, interrupted run.
      unit: what is counted.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        disable=not is_writer(),
        dynamic_ncols=True,
        # A log file gets a line now and then, a terminal a living bar.
        mininterval=0.5 if sys.stderr.isatty() else 20.0,
    )
