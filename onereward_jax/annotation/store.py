"""The preference store: a SQLite file with concurrent writers.

It uses write-ahead logging and one transaction per call, so every call is atomic, even if the
process is killed. Inserts are idempotent: repeating an interrupted import is safe. A *different*
record with the same identity is an error.
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
from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.tasks import Dimension, Task

BUSY_TIMEOUT_SECONDS = 30.0
"""Timeout of a writer that waits for another one."""

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
"""Fields that are ignored when two answers are compared."""


class PreferenceStore:
    """Candidates and preferences in `path` (created if missing). Use one instance per thread.

    Raises:
      ValueError: the file has another schema version, or is not a store.
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
        except sqlite3.OperationalError:  # disk error, or locked by another process
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(
                f"{self.path} is damaged ({error}): remove its folder to run the stage again"
            ) from error
        # FULL: a committed answer survives a power loss, not only a killed process.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._create_tables()

    def __enter__(self) -> PreferenceStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; committed records are already on disk."""
        self._connection.close()

    def add_candidates(self, candidates: Iterable[Candidate]) -> int:
        """Adds all or none; returns how many were new.

        Raises:
          ValueError: the store has a candidate with the same triplet and index but other settings.
        """
        return self._add(Candidate, candidates)

    def keep_candidates(self, kept: Iterable[tuple[str, int]]) -> int:
        """Removes all candidates except those with these (triplet, index); returns the number
        removed.

        Raises:
          ValueError: a candidate to remove has preferences.
        """
        kept = set(kept)
        leaving = [
            (one.triplet_id, one.index)
            for one in self.candidates()
            if (one.triplet_id, one.index) not in kept
        ]
        try:
            with self._transaction():
                self._connection.executemany(
                    'DELETE FROM candidates WHERE triplet_id = ? AND "index" = ?', leaving
                )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"{self.path}: a candidate with preferences stays") from error
        return len(leaving)

    def add_preferences(self, preferences: Iterable[Preference]) -> int:
        """Adds all or none; returns how many were new.

        Raises:
          ValueError: the annotator has already given a different answer, or winner or loser is not
            a stored candidate of the triplet.
        """
        return self._add(Preference, preferences)

    def candidates(self, triplet_id: str | None = None) -> list[Candidate]:
        """All candidates, or those of one triplet, sorted by triplet and index."""
        return self._select(Candidate, {"triplet_id": triplet_id}, 'triplet_id, "index"')

    def preferences(
        self, task: Task | None = None, dimension: Dimension | None = None
    ) -> list[Preference]:
        """Preferences, optionally of a task and/or dimension; sorted by triplet, dimension,
        annotator."""
        chosen = {"task": task, "dimension": dimension}
        return self._select(Preference, chosen, "triplet_id, dimension, annotator")

    def export_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Writes every record as a line {"record": "candidate" | "preference", ...}, candidates
        first; returns the number of lines. The write is atomic."""
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
        """Adds every record of an exported file, all or none; returns how many were new.

        Raises:
          ValueError: a line is not a record (with its number), or contradicts a stored record.
        """
        records: dict[type, list[Any]] = {Candidate: [], Preference: []}
        for number, line in json_lines(Path(path)):
            try:
                record = _from_line(json_object(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            records[type(record)].append(record)
        with self._transaction():
            return sum(self._insert(kind, kept) for kind, kept in records.items())

    def _create_tables(self) -> None:
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        if found not in (0, SCHEMA_VERSION):
            raise ValueError(
                f"{self.path} has schema version {found}, expected {SCHEMA_VERSION}: it was "
                "written by another version of this package"
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
            raise ValueError(f"{_name(record)} contradicts the stored record: {differing}")

    def _select(self, kind: type, equal: Mapping[str, Any], order: str) -> list[Any]:
        chosen = {name: value for name, value in equal.items() if value is not None}
        where = " AND ".join(f'"{name}" = ?' for name in chosen) or "1"
        query = f"SELECT * FROM {_TABLES[kind]} WHERE {where} ORDER BY {order}"
        rows = self._connection.execute(query, tuple(chosen.values())).fetchall()
        return [_from_fields(kind, dict(row)) for row in rows]


def _name(record: Candidate | Preference) -> str:
    """A description of a record."""
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
