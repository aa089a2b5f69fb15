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
    """Event files, written without TensorFlow.

    In the thread that calls: tensorboardX's own thread ends when a disk is full, and a training
    that goes on to tell it something waits for ever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """What earlier processes wrote behind `first_step` will not be shown."""
        # It imports torch where that is installed, so it is imported late.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._summary, self._event = summary, Event
        # A file is named by the second it is opened in, which need not tell two apart.
        self._file = EventsWriter(str(folder / "events"), f".{first_step}")
        self._flushed = time.monotonic()
        self._write(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, named: Mapping[str, float]) -> None:
        """As curves; the part of a name before "/" is a group of curves."""
        for name, value in named.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """On the page of images."""
        self._write(step, summary=self._summary.image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._file.flush()


class WeightsAndBiases:
    """A run of Weights & Biases; one that is resumed goes on under its id."""

    def __init__(
        self, project: str, folder: Path, *, run: str, name: str, config: Mapping[str, Any]
    ) -> None:
        """
        Args:
          project: created if missing.
          folder: for its files; exists.
          run: id of the run, unique in the project.
          name: shown to people.
          config: shown beside the curves.

        Raises:
          ValueError: Weights & Biases refuses, for instance because nobody has logged in.
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
        # Its own counter of steps never goes back, but a run after a crash does.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, named: Mapping[str, float]) -> None:
        """As curves over "step"."""
        self._run.log({"step": step, **named})

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """As media."""
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self) -> None:
        """Uploads what is left."""
        self._run.finish()


Logger = TensorBoard | WeightsAndBiases
"""What a `MetricsWriter` shows its numbers and pictures to."""
