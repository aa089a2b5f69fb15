"""`stage.json`: what a stage was made from and whether it is finished."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

FILE = "stage.json"
STARTED = "started"
COMPLETE = "complete"

HOW_ONLY = frozenset({"config.models.remat"})
"""Inputs that say how a stage computes, not what comes out: changing them makes nothing stale."""


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """The content of `stage.json`.

    Attributes:
      status: "started" or "complete".
      inputs: every value the output depends on, by its dotted name.
      finished: when it was completed (UTC, ISO 8601); "" while it is only started. Stages that
        read this one take it as the name of this very output.
      seconds: wall-clock time of the last run; 0 while it is only started.
      results: headline figures of the stage.
    """

    status: str
    inputs: dict[str, Any]
    finished: str = ""
    seconds: float = 0.0
    results: dict[str, Any] = dataclasses.field(default_factory=dict)


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The inputs that differ, as `name: old -> new; ...`; the first three by name. "" for none.

    Those in `HOW_ONLY` do not count.
    """
    absent = "(none)"
    differing = [
        f"{name}: {old.get(name, absent)} -> {new.get(name, absent)}"
        for name in sorted((old.keys() | new.keys()) - HOW_ONLY)
        if old.get(name, absent) != new.get(name, absent)
    ]
    more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
    return "; ".join(differing[:3]) + more


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
    path = folder / FILE
    partial = path.with_suffix(".partial")
    with open(partial, "w") as file:
        json.dump(dataclasses.asdict(record), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
