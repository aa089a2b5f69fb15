"""Parquet files with the pictures inside, streamed in row groups of bounded size.

One row per comparison. Pictures are structs of `bytes` and `path`, the layout of the library
`datasets`, whose feature types are in the schema's metadata; `settings` are JSON texts. Only
`pyarrow` reads and writes: nothing is unpickled or executed.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onereward_jax.annotation.comparisons import (
    DIGEST_DIGITS,
    ComparedPicture,
    Judgement,
    Picture,
    named,
    number,
    text,
)
from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, Rows
from onereward_jax.annotation.given_pictures import GivenPicture
from onereward_jax.data.example import SPLITS, RowError
from onereward_jax.exchange.about import read_about_beside, write_about
from onereward_jax.exchange.options import Options, Source
from onereward_jax.tasks import Dimension, Task

ROW_GROUP_BYTES, ROW_GROUP_ROWS = 16 << 20, 1000
"""A row group ends at either; it is what a reader has in memory."""

SHARD_BYTES = 512 << 20

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ANSWER = pa.struct(
    [
        ("dimension", pa.string()),
        ("best", pa.int32()),
        ("worst", pa.int32()),
        ("annotator", pa.string()),
        ("probability", pa.float64()),
        ("answered_at", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
COLUMNS = {
    "id": pa.string(),
    "task": pa.string(),
    "prompt": pa.string(),
    "split": pa.string(),
    "source": pa.string(),
    "image": PICTURE,
    "mask": PICTURE,
    "candidates": pa.list_(PICTURE),
    "models": pa.list_(pa.string()),
    "settings": pa.list_(pa.string()),
    "answers": pa.list_(ANSWER),
}


def feature(kind: pa.DataType) -> Any:
    """The feature of the library `datasets` for a type, as JSON."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def schema_of(columns: dict[str, pa.DataType]) -> pa.Schema:
    """A schema with the features of `datasets` in its metadata."""
    features = {name: feature(kind) for name, kind in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(columns.items()), metadata=metadata)


class ShardWriter:
    """Writes rows to `<stem>-00000.parquet` and so on, a row group at a time."""

    def __init__(self, folder: pathlib.Path, stem: str, columns: dict[str, pa.DataType]) -> None:
        self._folder, self._stem, self._schema = folder, stem, schema_of(columns)
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._shards = self._bytes = self._in_shard = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Adds a row; `size` is the number of bytes of its pictures."""
        self._rows.append(row)
        self._bytes += size
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is not None and self._in_shard >= SHARD_BYTES:
            self._writer.close()
            self._writer, self._in_shard = None, 0
        if self._writer is None:
            path = self._folder / f"{self._stem}-{self._shards:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Pictures are compressed already, and no two are equal within a row group.
            self._writer = pq.ParquetWriter(
                path, self._schema, use_dictionary=["task", "split"], write_statistics=False
            )
            self._shards += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._in_shard += self._bytes
        self._rows, self._bytes = [], 0


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes `preferences-*.parquet` and `about.json`."""
    writer = ShardWriter(folder, "preferences", COLUMNS)
    for _, one in rows:
        writer.add(*to_row(one))
    writer.close()
    write_about(folder, source)


def to_row(one: Loaded) -> tuple[dict[str, Any], int]:
    """A comparison as a row, and the number of bytes of its pictures."""

    def picture(stored: Picture | None) -> dict[str, Any] | None:
        return stored and {"bytes": one.contents[stored.path], "path": stored.path}

    comparison = one.comparison
    row = comparison.to_dict() | {
        "image": picture(comparison.image),
        "mask": picture(comparison.mask),
        "candidates": [picture(each.picture) for each in comparison.candidates],
        "models": [each.model for each in comparison.candidates],
        "settings": [_settings_text(each) for each in comparison.candidates],
    }
    return row, sum(map(len, one.contents.values()))


def _settings_text(candidate: ComparedPicture) -> str:
    return json.dumps(candidate.settings, ensure_ascii=False)


def parquet_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, or all *.parquet in a folder and below.

    Raises:
      FileNotFoundError: there is none.
    """
    if path.is_file():
        return [path]
    if found := sorted(one for one in path.rglob("*.parquet") if not one.name.startswith(".")):
        return found
    raise FileNotFoundError(f"{path}: there is no Parquet file")


def open_parquet(path: pathlib.Path) -> pq.ParquetFile:
    """Opens a file; raises ValueError if it is not a Parquet file."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names not in UTF-8
        raise ValueError(f"{path} is not a Parquet file, or damaged: {error}") from error


def parquet_rows(files: list[pathlib.Path]) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    """(place, row) of all rows, a few at a time; a damaged rest of a file is one error."""
    for path in files:
        with open_parquet(path) as opened:
            row = 0
            try:
                for group in range(opened.num_row_groups):
                    # Without its cache, which keeps what was read until the file is closed.
                    for batch in opened.iter_batches(16, [group], use_threads=False):
                        for place in range(batch.num_rows):
                            row += 1
                            yield f"{path.name}, row {row}", batch.slice(place, 1).to_pylist()[0]
            except (pa.ArrowException, OSError, ValueError) as error:
                yield f"{path.name}, row {row + 1}", RowError(f"the file is damaged: {error}")


def count_rows(files: list[pathlib.Path]) -> int:
    """The number of rows, from the footers; raises ValueError if a file is not Parquet."""
    total = 0
    for path in files:
        with open_parquet(path) as opened:
            total += opened.metadata.num_rows
    return total


def read(path: pathlib.Path, options: Options) -> Source:
    """The comparisons of a file, or of all files in a folder.

    Raises:
      FileNotFoundError, ValueError: there is no file, or it is not one of preferences.
    """
    files = parquet_files(path)
    for file in files:
        with open_parquet(file) as opened:
            missing = [name for name in COLUMNS if name not in opened.schema_arrow.names]
        if missing:
            raise ValueError(
                f"{file} has no column {missing[0]!r}: it is not a file of preferences; "
                "--format=table reads tables of pairs"
            )
    about = read_about_beside(path)
    return Source(_rows(files), count_rows(files), about.license, about.origin)


def _rows(files: list[pathlib.Path]) -> Rows:
    for place, row in parquet_rows(files):
        try:
            yield Row(place, row if isinstance(row, RowError) else _given(row))
        except RowError as error:
            yield Row(place, error)


def _given(row: dict[str, Any]) -> Given:
    expected: dict[str | int, str] = {}

    def picture(place: str | int, found: Any) -> GivenPicture | None:
        field = f"candidates[{place}]" if isinstance(place, int) else place
        if found is None:
            return None
        given = embedded_picture(field, found)
        stem = pathlib.PurePosixPath(given.name).stem
        if re.fullmatch(f"[0-9a-f]{{{DIGEST_DIGITS}}}", stem):
            expected[place] = stem
        return given

    candidates = [picture(place, one) for place, one in enumerate(row["candidates"] or ())]
    if None in candidates or len(candidates) < 2:
        raise RowError("candidates must be two or more pictures")
    for name in ("models", "settings"):
        if row[name] is not None and len(row[name]) != len(candidates):
            raise RowError(f"{name} has {len(row[name])} entries for {len(candidates)} candidates")
    split = row["split"]
    if split not in (*SPLITS, None):
        raise RowError(f'split must be "train", "test" or null, found {split!r}')
    return Given(
        task=named(Task, "task", row["task"], row["prompt"] or ""),
        prompt=text("prompt", row["prompt"], empty=True),
        split=split,
        id=text("id", row["id"] or "", empty=True),
        source=text("source", row["source"] or "", empty=True),
        image=picture("image", row["image"]),
        mask=picture("mask", row["mask"]),
        candidates=tuple(candidates),
        models=tuple(
            text(f"models[{place}]", one or "", empty=True)
            for place, one in enumerate(row["models"] or ())
        ),
        settings=tuple(
            _settings(f"settings[{place}]", one) for place, one in enumerate(row["settings"] or ())
        ),
        answers=tuple(
            _judgement(f"answers[{place}]", one) for place, one in enumerate(row["answers"] or ())
        ),
        expected=expected,
    )


def embedded_picture(field: str, found: Any) -> GivenPicture:
    """The picture of a struct of `bytes` and `path`; raises RowError."""
    content = found.get("bytes") if isinstance(found, dict) else found
    if not isinstance(content, bytes):
        raise RowError(f"{field} has no bytes of a picture")
    name = found.get("path") if isinstance(found, dict) else None
    return GivenPicture(name if isinstance(name, str) else "", lambda: content)


def _settings(field: str, value: Any) -> dict[str, Any]:
    try:
        found = json.loads(value or "{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(f"{field} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RowError(f"{field} must be a JSON object")
    return found


def _judgement(where: str, found: Any) -> Judgement:
    if not isinstance(found, dict):
        raise RowError(f"{where} is null")
    for name in (field.name for field in dataclasses.fields(Judgement)):
        if name not in found:
            raise RowError(f"{where}.{name} is missing")
    return Judgement(
        dimension=named(Dimension, f"{where}.dimension", found["dimension"]),
        best=found["best"],
        worst=found["worst"],
        annotator=text(f"{where}.annotator", found["annotator"]),
        **{
            name: number(f"{where}.{name}", found[name])
            for name in ("probability", "answered_at", "seconds")
        },
    )
