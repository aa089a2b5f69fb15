"""Rows of CSV files (RFC 4180): cells may be quoted, and quoted cells may contain line ends.

The first line has the names of the columns. It also decides on the delimiter: a comma, a semicolon
(spreadsheets of many countries) or a tab.
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator

from onereward_jax.common.json_lines import BOM, utf8
from onereward_jax.data.example import RowError

DELIMITERS = ",;\t"

LONGEST_CELL = 1 << 20
"""Characters."""

Cells = dict[str, str | None]
"""Column -> cell; None if it is empty."""


def csv_rows(path: pathlib.Path) -> Iterator[tuple[int, Cells | RowError]]:
    """(number of its last line, cells) of each row, on demand; blank lines are skipped.

    Columns without a name, such as the index that pandas writes, are left out.

    Raises:
      ValueError: the file is empty or not UTF-8, or two columns have the same name.
      OSError: the file cannot be read.
    """
    csv.field_size_limit(LONGEST_CELL)
    with path.open("rb") as file:
        lines = _decoded(path, file)
        first = next(lines, "")
        delimiter = max(DELIMITERS, key=_outside_quotes(first).count)
        reader = csv.reader(_chained(first, lines), delimiter=delimiter, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise ValueError(f"{path}, line 1: not CSV: {error}") from error
        if not any(columns):
            raise ValueError(f"{path} is empty: the names of its columns are expected in line 1")
        for name in filter(None, columns):
            if columns.count(name) > 1:
                raise ValueError(f"{path}, line 1: two columns are called {name!r}")
        yield from _rows(reader, columns)


def _rows(
    reader: Iterator[list[str]], columns: list[str]
) -> Iterator[tuple[int, Cells | RowError]]:
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield first, RowError(_reason(error))
            continue
        if cells is None:
            return
        number = reader.line_num
        if not cells:
            continue
        if len(cells) != len(columns):
            found = f"{len(cells)} cells, {len(columns)} columns"
            yield number, RowError(f"{found} (quote cells that contain the delimiter)")
        else:
            pairs = zip(columns, cells)
            yield number, {name: cell if cell.strip() else None for name, cell in pairs if name}


def _reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "not CSV: a quote that begins in this row is not closed"
    return f"not CSV: {error}"


def _decoded(path: pathlib.Path, file: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield utf8(line.removeprefix(BOM) if number == 1 else line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from lines


def _outside_quotes(line: str) -> str:
    """The line without its quoted cells."""
    return "".join(line.split('"')[::2])
