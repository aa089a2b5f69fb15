"""`stage.json`: the inputs of a stage's output, and whether it is complete."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from onereward_jax.common.atomic_file import atomic_file

FILE = "stage.json"
STARTED = "started"
COMPLETE = "complete"


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """The content of `stage.json`.

    Attributes:
      status: "started" or "complete".
      inputs: every value that the output depends on, by dotted name.
      identity: hash of the inputs, which identifies the output to the stages that read it.
      finished: time of completion (UTC, ISO 8601); "" if only started.
      seconds: wall-clock time of the last run; 0 if only started.
      results: main results of the stage.
    """

    status: str
    inputs: dict[str, Any]
    identity: str = ""
    finished: str = ""
    seconds: float = 0.0
    results: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_record(folder: pathlib.Path) -> StageRecord | None:
    """The record in a stage's folder; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record = StageRecord(**json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(part, dict) for part in (record.inputs, record.results)):
            raise TypeError("inputs and results are JSON objects")
        return record
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it to run the stage again"
        ) from error


def write_record(folder: pathlib.Path, record: StageRecord) -> None:
    """Writes the record atomically."""
    with atomic_file(folder / FILE, sync=True) as draft:
        draft.write_text(json.dumps(dataclasses.asdict(record), indent=2), encoding="utf-8")
