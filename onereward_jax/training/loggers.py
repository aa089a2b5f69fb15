"""Loggers: TensorBoard event files, Weights & Biases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

FLUSH_SECONDS = 10


class TensorBoard:
    """TensorBoard event files, written without TensorFlow.

    Written in the calling thread: tensorboardX's own writer thread dies if the disk is full, and
    training would then block forever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens an event file; hides values of earlier processes after `first_step`."""
        # Imported late, because it imports torch if installed.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._summary, self._event = summary, Event
        # File names contain the time in seconds, which may not be unique.
        self._file = EventsWriter(str(folder / "events"), f".{first_step}")
        self._flushed = time.monotonic()
        self._write(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, named: Mapping[str, float]) -> None:
        """Logs scalars; the part of a name before "/" is the group."""
        for name, value in named.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Logs an image."""
        self._write(step, summary=self._summary.image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._file.flush()


class WeightsAndBiases:
    """A Weights & Biases run; a resumed run keeps its id."""

    def __init__(
        self, project: str, folder: Path, *, run: str, name: str, config: Mapping[str, Any]
    ) -> None:
        """
        Args:
          project: created if missing.
          folder: existing folder for its files.
          run: id of the run, unique in the project.
          name: display name.
          config: the config to show.

        Raises:
          ValueError: Weights & Biases reports an error, e.g. not logged in.
          ModuleNotFoundError: the package is not installed.
        """
        import wandb

        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=project, dir=folder, id=run, name=name, config=dict(config), resume="allow"
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"config.logging.wandb: Weights & Biases says: {reason}") from error
        # W&B's own step counter cannot go back, but a run resumed after a crash does.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, named: Mapping[str, float]) -> None:
        """Logs scalars over "step"."""
        self._run.log({"step": step, **named})

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Logs an image."""
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self) -> None:
        """Finishes the run and uploads pending data."""
        self._run.finish()


Logger = TensorBoard | WeightsAndBiases
"""A logger of `MetricsWriter`."""
