"""The rows of JSON lines, CSV, Parquet and tar files, in one form, and the pictures they name.

A record is a row before it is checked: its fields, with the names that its file has. Pictures are
named by their path in the folder; those inside a tar or a Parquet file by that file, their row and
their field, as in shard-0.tar/0001/mask.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from onereward_jax.common.json_lines import json_lines, json_object, utf8
from onereward_jax.data.csv_rows import csv_rows
from onereward_jax.data.example import RowError, Split
from onereward_jax.data.picture_paths import find_picture
from onereward_jax.data.row_columns import PICTURES, field_of
from onereward_jax.data.row_files import RowFiles, row_files
from onereward_jax.data.tar_shards import tar_samples


class Place(NamedTuple):
    """Where a row is.

    Attributes:
      number: its line, if there is one file of lines; otherwise its place among all rows, from 1.
      text: in words, such as "line 7" or "shard-0.tar, sample 0001".
    """

    number: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Record:
    """A row as it is in its file.

    Attributes:
      place: where it is.
      fields: column -> value, or why there are none.
      has_others: it may have columns for other programs.
      split: of its file.
    """

    place: Place
    fields: Mapping[str, Any] | RowError
    has_others: bool
    split: Split | None = None


@runtime_checkable
class Archived(Protocol):
    """A picture inside a file, such as `tar_shards.Member`."""

    def read(self) -> bytes:
        """Its content. Raises RowError."""


class RowPictures:
    """The pictures that rows name. Thread-safe."""

    def __init__(self, folder: pathlib.Path) -> None:
        """
        Args:
          folder: paths are relative to it.
        """
        self._folder = folder
        self._archived: dict[str, Archived] = {}
        self._known: dict[str, tuple[tuple[int, int], str]] = {}

    def add(self, name: str, picture: Archived) -> str:
        """Adds a picture inside a file; returns its name."""
        self._archived[name] = picture
        return name

    def is_archived(self, name: str) -> bool:
        """Whether it is inside a file."""
        return name in self._archived

    def open(self, name: str) -> pathlib.Path | bytes:
        """The file of a picture, or its content if it is inside another file. Raises RowError."""
        if name in self._archived:
            return self._archived[name].read()
        return find_picture(self._folder, name)

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of a picture, upright, from its header. Raises RowError."""
        if name in self._archived:
            return self._facts(name)[0]
        try:
            return _stored_size(self.open(name), name)
        except (ValueError, OSError) as error:
            raise RowError(str(error)) from error

    def digest(self, name: str) -> str:
        """The SHA-256 of a picture's file. Raises RowError, OSError."""
        if name in self._archived:
            return self._facts(name)[1]
        with self.open(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _facts(self, name: str) -> tuple[tuple[int, int], str]:
        """Size and digest of a picture inside a file, which is read once for both."""
        if name not in self._known:
            content = self.open(name)
            try:
                size = _stored_size(content, name)
            except ValueError as error:
                raise RowError(str(error)) from error
            self._known[name] = (size, hashlib.sha256(content).hexdigest())
        return self._known[name]


@dataclasses.dataclass(frozen=True)
class RowSource:
    """The records of a data set.

    Attributes:
      files: the files that they are in.
      records: all of them, in order, without their pictures.
      pictures: of all of them.
    """

    files: RowFiles
    records: tuple[Record, ...]
    pictures: RowPictures

    @property
    def title(self) -> str:
        """What the rows are called in messages."""
        return self.files.title


def open_rows(path: str | pathlib.Path) -> RowSource:
    """The rows of a folder, a file or a pattern of files, see `row_files`.

    Raises:
      FileNotFoundError: as `row_files`.
      ValueError: as `row_files`; or a file is damaged as a whole, or there are no rows.
      ModuleNotFoundError: Parquet files are given, and the extra that reads them is not installed.
    """
    files = row_files(path)
    pictures = RowPictures(files.folder)
    records: list[Record] = []
    several = len(files.files) > 1
    for file, split in zip(files.files, files.splits()):
        inside = file.relative_to(files.folder)
        where = f"{inside.as_posix()}, " if several else ""
        for number, word, fields, others in _READERS[files.kind](file, inside, pictures):
            unique = len(records) + 1 if several or files.kind == "tar" else number
            records.append(Record(Place(unique, f"{where}{word}"), fields, others, split))
    if not records:
        raise ValueError(f"{files.title} has no rows")
    return RowSource(files, tuple(records), pictures)


Found = Iterator[tuple[int, str, Mapping[str, Any] | RowError, bool]]
"""(number, place in the file, fields, whether there may be others)."""


def _from_json_lines(file: pathlib.Path, inside: pathlib.PurePath, pictures: RowPictures) -> Found:
    for number, line in json_lines(file):
        try:
            text = utf8(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
        try:
            fields = _moved(json_object(text), inside)
        except ValueError as error:
            yield number, f"line {number}", RowError(str(error)), False
            continue
        yield number, f"line {number}", fields, any(name.endswith("file_name") for name in fields)


def _from_csv(file: pathlib.Path, inside: pathlib.PurePath, pictures: RowPictures) -> Found:
    for number, cells in csv_rows(file):
        fields = cells if isinstance(cells, RowError) else _moved(cells, inside)
        yield number, f"line {number}", fields, True


def _from_parquet(file: pathlib.Path, inside: pathlib.PurePath, pictures: RowPictures) -> Found:
    try:
        from onereward_jax.data.parquet_rows import Embedded, parquet_rows
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{file}: Parquet files need the package pyarrow: pip install -e '.[people]'"
        ) from error

    for number, fields in parquet_rows(file, lambda column: field_of(column) is not None):
        fields = {
            column: pictures.add(f"{inside.as_posix()}/{number}/{field_of(column)}", value)
            if isinstance(value, Embedded)
            else _path_in(value, inside)
            if field_of(column) in PICTURES
            else value
            for column, value in fields.items()
        }
        yield number, f"row {number}", fields, True


def _from_tar(file: pathlib.Path, inside: pathlib.PurePath, pictures: RowPictures) -> Found:
    for number, sample in enumerate(tar_samples(file), 1):
        fields = sample.fields
        if not isinstance(fields, RowError):
            there = {
                field: pictures.add(f"{inside.as_posix()}/{sample.key}/{field}", member)
                for field, member in sample.pictures.items()
                if field in PICTURES
            }
            others = {field: None for field in sample.pictures if field not in PICTURES}
            named = [name for name in fields if field_of(name) in there]
            fields = {**{name: fields[name] for name in fields if name not in named}, **others}
            fields |= there
        yield number, f"sample {sample.key}", fields, True


_READERS: dict[str, Callable[[pathlib.Path, pathlib.PurePath, RowPictures], Found]] = {
    "jsonl": _from_json_lines,
    "csv": _from_csv,
    "parquet": _from_parquet,
    "tar": _from_tar,
}


def _moved(fields: Mapping[str, Any], inside: pathlib.PurePath) -> dict[str, Any]:
    """The fields of a row in a subfolder's file, with paths from the top."""
    return {
        name: _path_in(value, inside) if field_of(name) in PICTURES else value
        for name, value in fields.items()
    }


def _path_in(value: Any, inside: pathlib.PurePath) -> Any:
    folder = inside.parent.as_posix()
    if folder == "." or not isinstance(value, str) or not value.strip():
        return value
    return value if value.startswith("/") or "://" in value else f"{folder}/{value}"


def _stored_size(source: pathlib.Path | bytes, name: str) -> tuple[int, int]:
    """`pictures.stored_size`; `train_compile`, which reads no row, does without Pillow."""
    from onereward_jax.pictures import stored_size

    return stored_size(source, name)
