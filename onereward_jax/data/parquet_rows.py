"""Rows of Parquet files, whose pictures are paths or in the file itself.

Pictures in the file are structs of `bytes` and `path`, as the library `datasets` writes them, or
plain binary cells. They are read in small windows of rows, on demand: files are mapped into
memory, of which a page (some hundred rows) is decompressed at a time. Only `pyarrow` reads (extra
`people`): nothing is unpickled.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onereward_jax.data.example import RowError

WINDOW = 8
"""Rows that are read together."""

WINDOWS, CURSORS = 16, 6
"""Windows kept in memory, and columns that are open at the same time."""


Window = list[bytes | None]
"""The cells of a column in consecutive rows."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A picture in a Parquet file.

    Attributes:
      path: the file.
      row: its row, from 0.
      column: name of the column of its bytes, such as "image.bytes".
    """

    path: pathlib.Path
    row: int
    column: str

    def read(self) -> bytes:
        """Its content. Thread-safe. Raises RowError."""
        return _READER.read(self)


def parquet_rows(
    path: pathlib.Path, known: Callable[[str], bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, fields) of each row; pictures in the file are `Embedded`.

    Args:
      path: the file.
      known: whether a column is read; others have the value None.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a Parquet file, or damaged.
    """
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            yield from _rows(path, file, known)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} is not a Parquet file, or damaged: {_first_line(error)}"
        ) from error


def _rows(
    path: pathlib.Path, file: pq.ParquetFile, known: Callable[[str], bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    schema = file.schema_arrow
    others = dict.fromkeys(name for name in schema.names if not known(name))
    columns: dict[str, Iterator[Any]] = {}
    for name in schema.names:
        kind = schema.field(name).type
        if name in others:
            continue
        if pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
            columns[name] = _pictures(path, file, name, f"{name}.bytes", f"{name}.path")
        elif _is_binary(kind):
            columns[name] = _pictures(path, file, name, name, None)
        elif pa.types.is_nested(kind):
            columns[name] = itertools.repeat(f"a column of type {kind}")
        else:
            columns[name] = _cells(file, name)
    for number in range(file.metadata.num_rows):
        yield number + 1, {name: next(cells) for name, cells in columns.items()} | others


def _cells(file: pq.ParquetFile, column: str) -> Iterator[Any]:
    for batch in file.iter_batches(batch_size=1024, columns=[column]):
        values = batch.column(0)
        if pa.types.is_struct(values.type):
            values = values.field(0)
        yield from values.to_pylist()


def _pictures(
    path: pathlib.Path, file: pq.ParquetFile, name: str, content: str, stored_path: str | None
) -> Iterator[Embedded | str | None]:
    paths = itertools.repeat(None) if stored_path is None else _cells(file, stored_path)
    row = itertools.count()
    for there, where in zip(_is_there(file, content), paths):
        number = next(row)
        yield Embedded(path, number, content) if there else where


def _is_there(file: pq.ParquetFile, column: str) -> Iterator[bool]:
    """Whether each row has bytes; these are only read if the file does not count the null ones."""
    places = {file.schema.column(place).path: place for place in range(len(file.schema))}
    for group in range(file.num_row_groups):
        chunk = file.metadata.row_group(group).column(places[column])
        counted = chunk.statistics is not None and chunk.statistics.has_null_count
        nulls = chunk.statistics.null_count if counted else None
        if nulls in (0, chunk.num_values):
            yield from itertools.repeat(nulls == 0, chunk.num_values)
            continue
        for batch in file.iter_batches(WINDOW, row_groups=[group], columns=[column]):
            yield from _innermost(batch).is_valid().to_pylist()


class _Reader:
    """Reads embedded pictures in windows, of which the last ones are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: collections.OrderedDict[tuple, Window] = collections.OrderedDict()
        self._cursors: collections.OrderedDict[tuple, _Cursor] = collections.OrderedDict()

    def read(self, wanted: Embedded) -> bytes:
        """The content of a picture. Raises RowError."""
        state = wanted.path.stat()
        column = (wanted.path, state.st_size, state.st_mtime_ns, wanted.column)
        try:
            with self._lock:
                window = self._window(column, wanted.row)
        except (pa.ArrowException, OSError) as error:
            reason = _first_line(error)
            raise RowError(f"{wanted.path.name} cannot be read: {reason}") from error
        return window[wanted.row % WINDOW]

    def _window(self, column: tuple, row: int) -> Window:
        number = row // WINDOW
        if (column, number) not in self._windows:
            cursor = self._cursors.pop(column, None)
            if cursor is None or cursor.next > number:
                cursor = _Cursor(column[0], column[-1])
            self._windows[column, number] = cursor.window(number)
            self._cursors[column] = cursor
        self._windows.move_to_end((column, number))
        for kept, most in ((self._windows, WINDOWS), (self._cursors, CURSORS)):
            while len(kept) > most:
                kept.popitem(last=False)
        return self._windows[column, number]


class _Cursor:
    """Reads a column forwards, window by window.

    Attributes:
      next: number of the window that is read next.
    """

    def __init__(self, path: pathlib.Path, column: str) -> None:
        self._file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        self._column = column
        self._ends = list(
            itertools.accumulate(
                self._file.metadata.row_group(group).num_rows
                for group in range(self._file.num_row_groups)
            )
        )
        self.next = 0
        self._values = self._from(0)

    def window(self, number: int) -> Window:
        """The window of this number, at least `next`; whole row groups before it are skipped."""
        first = number * WINDOW
        if number > self.next:
            self._values = self._from(first)
        self.next = number + 1
        return list(itertools.islice(self._values, WINDOW))

    def _from(self, first: int) -> Iterator[bytes | None]:
        start = 0
        for group, end in enumerate(self._ends):
            if end > first:
                for batch in self._file.iter_batches(
                    WINDOW, row_groups=[group], columns=[self._column]
                ):
                    if start + len(batch) > first:
                        values = _innermost(batch).slice(max(first - start, 0))
                        yield from values.to_pylist()
                    start += len(batch)
            start = end


_READER = _Reader()


def _innermost(batch: pa.RecordBatch) -> pa.Array:
    values = batch.column(0)
    return values.field(0) if pa.types.is_struct(values.type) else values


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
