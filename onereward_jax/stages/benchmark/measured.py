"""What was measured of each picture, kept in a file: a killed run loses one batch.

measured.jsonl   {"kind", "editor", "benchmark", "row", "key", "values"}: of equal ones the last

`key` changes with the picture, the row and the weights that measured it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onereward_jax.common.atomic_file import atomic_file

MEASURED = "measured.jsonl"

Place = tuple[str, str, str, str]
"""(kind of metric, editor, benchmark, row)."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The values of one kind of metrics for one picture.

    Attributes:
      kind, editor, benchmark, row: names.
      key: of all that the values depend on.
      values: metric -> value, or why there is none.
    """

    kind: str
    editor: str
    benchmark: str
    row: str
    key: str
    values: dict[str, Any]

    @property
    def place(self) -> Place:
        """Of what it is."""
        return self.kind, self.editor, self.benchmark, self.row


class MeasuredFile:
    """The file, read and open for appending. For process 0.

    Attributes:
      known: what is in it.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the file; the last line of a killed run may be cut, and does not count.

        Raises:
          ValueError: another line is no record.
        """
        self._path = folder / MEASURED
        self.known = {one.place: one for one in _read(self._path)}
        with atomic_file(self._path) as draft:
            draft.write_text("".join(map(_line, self.known.values())), encoding="utf-8")

    def add(self, found: Iterable[Measured]) -> None:
        """Appends records."""
        with self._path.open("a", encoding="utf-8") as file:
            for one in found:
                self.known[one.place] = one
                file.write(_line(one))


def _read(path: Path) -> Iterable[Measured]:
    if not path.is_file():
        return
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            yield Measured(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(
                f"{path}, line {number} is no record of a measurement: remove the file, and all "
                "is measured again"
            ) from None


def _line(one: Measured) -> str:
    return json.dumps(dataclasses.asdict(one)) + "\n"
