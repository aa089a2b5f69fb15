"""Writes metrics to a JSONL file and to loggers, on process 0 only."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.parallel import is_writer
from onereward_jax.training.loggers import Logger

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends one line per log point to `metrics.jsonl`; a context manager.

    A resumed run appends to the same file. Lines between the last checkpoint and a crash are
    removed first, because those steps are repeated; so every step occurs once.

    Attributes:
      folder: folder of the file.
    """

    def __init__(
        self, folder: Path, *, first_step: int = 0, loggers: Sequence[Logger] = ()
    ) -> None:
        """Opens the file.

        Args:
          folder: created if missing.
          first_step: the step from which the run starts or resumes.
          loggers: also get everything; closed with the writer.
        """
        self.folder = folder
        self._file = None
        self._loggers = loggers
        if not is_writer():
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS
        _keep_until(path, first_step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records the numbers of `step`."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        for logger in self._loggers:
            logger.scalars(step, scalars)

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Logs an image of `step` to the loggers."""
        for logger in self._loggers:
            logger.picture(step, name, pixels)

    def close(self) -> None:
        """Closes the file and the loggers."""
        if self._file is not None:
            self._file.close()
        for logger in self._loggers:
            logger.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, float | int]]:
    """The lines of a `metrics.jsonl`, without a line truncated by a crash."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in whole]


def _keep_until(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    with atomic_file(path) as draft:  # if killed here, the old log remains
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
