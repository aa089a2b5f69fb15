"""Rows of a table in any usual file: JSON, JSON lines, CSV, TSV, Parquet, each with its place."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.data.csv_rows import csv_rows
from onereward_jax.data.example import RowError
from onereward_jax.exchange import parquet

Record = dict[str, Any]
Records = Iterator[tuple[str, Record | RowError]]


def open_records(path: pathlib.Path) -> tuple[Records, int]:
    """(place, row) of all rows, read on demand, and their number.

    By the ending: .jsonl; .json, a list of objects; .csv and .tsv, whose first line has the names;
    .parquet, or a folder with such files.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: its ending is another one, it is damaged as a whole, or not UTF-8.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir() or path.suffix == ".parquet":
        files = parquet.parquet_files(path)
        return parquet.parquet_rows(files), parquet.count_rows(files)
    if path.suffix in (".csv", ".tsv"):
        return _csv_rows(path), _count_lines(path) - 1
    if path.suffix == ".jsonl":
        return _json_lines(path), _count_lines(path)
    if path.suffix == ".json":
        entries = json_list(path)
        return (_entry(place, entry) for place, entry in enumerate(entries, 1)), len(entries)
    endings = ".jsonl, .json, .csv, .tsv or .parquet"
    raise ValueError(f"{path} must end in {endings}")


def json_list(path: pathlib.Path) -> list[Any]:
    """The list in a JSON file; raises ValueError."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, list):
        raise ValueError(f"{path} must be a list of objects")
    return found


def _entry(place: int, entry: Any) -> tuple[str, Record | RowError]:
    if isinstance(entry, dict):
        return f"entry {place}", entry
    return f"entry {place}", RowError("not a JSON object")


def _json_lines(path: pathlib.Path) -> Records:
    for number, line in json_lines(path):
        try:
            yield f"line {number}", json_object(line)
        except ValueError as error:
            yield f"line {number}", RowError(str(error))


def _csv_rows(path: pathlib.Path) -> Records:
    for number, cells in csv_rows(path):
        yield f"line {number}", cells


def _count_lines(path: pathlib.Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
