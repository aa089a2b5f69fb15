"""Where metrics go: a JSONL file, TensorBoard if wanted; written by process 0 only."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereward_jax.parallel import is_writer


class MetricsWriter:
    """Appends one line a log point to `metrics.jsonl`; usable as a context manager.

    A resumed run appends to the same file. Lines of steps that are repeated after a crash (those
    between the last checkpoint and the crash) are cut off first, so that every step is there once.
    """

    def __init__(self, folder: Path, *, first_step: int = 0, tensorboard: bool = False) -> None:
        """Opens the files.

        Args:
          folder: created if missing.
          first_step: the step the run starts or resumes from.
          tensorboard: also write event files; needs the package tensorboardX.

        Raises:
          ModuleNotFoundError: tensorboardX is wanted and not installed.
        """
        self._file = None
        self._events: Any = None
        if not is_writer():
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        _keep_until(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records the numbers of `step`."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

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
    """The lines of a `metrics.jsonl`; a line torn by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _keep_until(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
