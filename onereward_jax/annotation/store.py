"""The preference store: one SQLite file that several annotators may write at the same time.

Write-ahead logging and one transaction per call: a process killed at any moment leaves either
the whole call or nothing of it. Inserts are idempotent, so an interrupted import or a browser that
sends an answer twice does no harm; a *different* record under the same identity is an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onereward_jax.annotation.records import Candidate, Preference
from onereward_jax.annotation.schema import SCHEMA, SCHEMA_VERSION
from onereward_jax.tasks import Dimension, Task

BUSY_TIMEOUT_SECONDS = 30.0
"""How long a writer waits for another one before SQLite reports that the file is locked."""

_TABLES: Mapping[type, str] = types.MappingProxyType(
    {Candidate: "candidates", Preference: "preferences"}
)
_IDENTITY: Mapping[type, tuple[str, ...]] = types.MappingProxyType(
    {
        Candidate: ("triplet_id", "index"),
        Preference: ("triplet_id", "dimension", "annotator"),
    }
)
_TIMING = ("answered_at", "seconds")
"""Not part of what an answer says: the same answer sent again a second later is the same."""


class PreferenceStore:
    """Candidates and preferences in `path` (created when missing). One instance per thread.

    Raises:
      ValueError: the file was written by another schema version, or is no store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # of the disk, or another process
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(
                f"{self.path} is damaged ({error}): remove its folder to run the stage again"
            ) from error
        # FULL: an answer that was acknowledged survives power loss, not only a killed process
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._create_tables()

    def __enter__(self) -> PreferenceStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; committed records are already safe."""
        self._connection.close()

    def add_candidates(self, candidates: Iterable[Candidate]) -> int:
        """Add all or none; returns how many were new.

        Raises:
          ValueError: a candidate of the same triplet and index is stored with other settings.
        """
        return self._add(Candidate, candidates)

    def keep_candidates(self, wanted: Iterable[tuple[str, int]]) -> int:
        """Remove all candidates but those of these (triplet, index); returns how many left.

        Raises:
          ValueError: one of them has been judged.
        """
        wanted = set(wanted)
        leaving = [
            (one.triplet_id, one.index)
            for one in self.candidates()
            if (one.triplet_id, one.index) not in wanted
        ]
        try:
            with self._transaction():
                self._connection.executemany(
                    'DELETE FROM candidates WHERE triplet_id = ? AND "index" = ?', leaving
                )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"{self.path}: a candidate that has been judged stays") from error
        return len(leaving)

    def add_preferences(self, preferences: Iterable[Preference]) -> int:
        """Add all or none; returns how many were new.

        Raises:
          ValueError: this annotator has already answered otherwise, or winner or loser is not a
            stored candidate of the triplet.
        """
        return self._add(Preference, preferences)

    def candidates(self, triplet_id: str | None = None) -> list[Candidate]:
        """All candidates, or those of one triplet, by triplet and index."""
        return self._select(Candidate, {"triplet_id": triplet_id}, 'triplet_id, "index"')

    def preferences(
        self, task: Task | None = None, dimension: Dimension | None = None
    ) -> list[Preference]:
        """Those of a task and/or dimension, or all; by triplet, dimension, annotator."""
        chosen = {"task": task, "dimension": dimension}
        return self._select(Preference, chosen, "triplet_id, dimension, annotator")

    def export_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Write every record as a line {"record": "candidate" | "preference", ...}, candidates
        first; returns the number of lines. The file appears whole or not at all."""
        destination = Path(path)
        partial = destination.with_name(destination.name + ".partial")
        with self._transaction("DEFERRED"):
            records = [*self.candidates(), *self.preferences()]
        with partial.open("w", encoding="utf-8") as file:
            for record in records:
                line = {"record": type(record).__name__.lower(), **dataclasses.asdict(record)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
        return len(records)

    def import_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Add every record of an exported file, all or none; returns how many were new.

        Raises:
          ValueError: a line is no record (with its number), or contradicts what is stored.
        """
        records: dict[type, list[Any]] = {Candidate: [], Preference: []}
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = _from_line(json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                records[type(record)].append(record)
        with self._transaction():
            return sum(self._insert(kind, kept) for kind, kept in records.items())

    def _create_tables(self) -> None:
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        if found not in (0, SCHEMA_VERSION):
            raise ValueError(
                f"{self.path} is of schema version {found}, {SCHEMA_VERSION} is expected: another "
                "version of this package has written it"
            )
        self._connection.executescript(SCHEMA)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Iterator[None]:
        self._connection.execute(f"BEGIN {mode}")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _add(self, kind: type, records: Iterable[Any]) -> int:
        records = list(records)
        with self._transaction():
            return self._insert(kind, records)

    def _insert(self, kind: type, records: Iterable[Any]) -> int:
        columns = [field.name for field in dataclasses.fields(kind)]
        names = ", ".join(f'"{name}"' for name in columns)
        places = ", ".join("?" * len(columns))
        statement = (
            f"INSERT INTO {_TABLES[kind]} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"
        )
        new = 0
        for record in records:
            try:
                added = self._connection.execute(statement, dataclasses.astuple(record)).rowcount
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{_name(record)} is refused: {error}") from error
            if not added:
                self._require_same(record)
            new += added
        return new

    def _require_same(self, record: Candidate | Preference) -> None:
        identity = {name: getattr(record, name) for name in _IDENTITY[type(record)]}
        (stored,) = self._select(type(record), identity, "1")
        same_time = {name: getattr(stored, name) for name in _TIMING if hasattr(stored, name)}
        if dataclasses.replace(record, **same_time) != stored:
            differing = ", ".join(
                f"{name} {value!r} instead of {getattr(stored, name)!r}"
                for name, value in dataclasses.asdict(record).items()
                if name not in _TIMING and value != getattr(stored, name)
            )
            raise ValueError(f"{_name(record)} contradicts what is stored: {differing}")

    def _select(self, kind: type, equal: Mapping[str, Any], order: str) -> list[Any]:
        chosen = {name: value for name, value in equal.items() if value is not None}
        where = " AND ".join(f'"{name}" = ?' for name in chosen) or "1"
        query = f"SELECT * FROM {_TABLES[kind]} WHERE {where} ORDER BY {order}"
        rows = self._connection.execute(query, tuple(chosen.values())).fetchall()
        return [_from_fields(kind, dict(row)) for row in rows]


def _name(record: Candidate | Preference) -> str:
    """A record in words."""
    if isinstance(record, Candidate):
        return f"candidate {record.index} of {record.triplet_id}"
    return f"the answer of {record.annotator!r} about {record.triplet_id} in {record.dimension}"


def _from_fields(kind: type, fields: dict[str, Any]) -> Candidate | Preference:
    if kind is Preference:
        fields["task"] = Task(fields["task"])
        fields["dimension"] = Dimension(fields["dimension"])
    return kind(**fields)


def _from_line(fields: dict[str, Any]) -> Candidate | Preference:
    kinds = {kind.__name__.lower(): kind for kind in _TABLES}
    name = fields.pop("record")
    if name not in kinds:
        raise ValueError(f"record must be one of {sorted(kinds)}, found {name!r}")
    return _from_fields(kinds[name], fields)
