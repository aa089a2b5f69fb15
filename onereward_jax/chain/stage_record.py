"""`stage.json`: what a stage was made from and whether it is finished."""

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
      inputs: every value the output depends on, by its dotted name.
      identity: names this very output to the stages that read it; equal inputs make equal output.
      finished: when it was completed (UTC, ISO 8601); "" while it is only started.
      seconds: wall-clock time of the last run; 0 while it is only started.
      results: headline figures of the stage.
    """

    status: str
    inputs: dict[str, Any]
    identity: str = ""
    finished: str = ""
    seconds: float = 0.0
    results: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_record(folder: pathlib.Path) -> StageRecord | None:
    """The record of a stage's folder, None when it has none.

    Raises:
      ValueError: the file is there but is not a record.
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
    """Write the record so that a crash leaves either the old file or the new one."""
    with atomic_file(folder / FILE, sync=True) as draft:
        draft.write_text(json.dumps(dataclasses.asdict(record), indent=2), encoding="utf-8")
