"""The index of a split: all columns of its records except the images, in one file.

    index-train.json   {"format": 1, "shards": [{"file", "records", "bytes"}, ...], "repeated": [],
                        "rows": {"id": [...], "prompt": [...], "task": [...], ...}}

Names, prompts, tasks and sizes of 40,000 triplets are read from it in a fraction of a second,
while the records are tens of GB. The index lists the files it belongs to, so an index of other
records is detected.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.data.example import Example, Split
from onereward_jax.data.tfds_record import TEXTS

FORMAT = 1

COLUMNS = (*TEXTS, "has_target", "height", "width")
"""Columns of the index: texts, whether the target is known, image size in pixels."""

Row = Mapping[str, str | bool | int]
"""Column -> value."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
      file: its name in the folder of the data set.
      records: number of records.
      bytes: size of the file.
    """

    file: str
    records: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Index:
    """The columns of a split.

    Attributes:
      shards: files, in record order.
      rows: column -> its values, in record order.
      repeated: pairs (duplicate row of the source, earlier row with the same triplet).
    """

    shards: tuple[Shard, ...]
    rows: Mapping[str, Sequence[Any]]
    repeated: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return sum(shard.records for shard in self.shards)

    def why_not(self, folder: pathlib.Path) -> str:
        """Why the index does not match the shards in `folder`; "" if it does."""
        for shard in self.shards:
            try:
                found = (folder / shard.file).stat().st_size
            except FileNotFoundError:
                return f"there is no {shard.file}"
            if found != shard.bytes:
                return f"{shard.file} has {found} bytes, expected {shard.bytes}"
        return ""


def row_of(example: Example) -> Row:
    """The index row of an example."""
    texts = {name: getattr(example, name) for name in TEXTS} | {"task": example.task.value}
    height, width = example.mask.shape
    return texts | {"has_target": example.has_target, "height": height, "width": width}


def columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Transposes rows to columns."""
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in COLUMNS}


def index_path(folder: pathlib.Path, split: Split) -> pathlib.Path:
    """Path of the index of a split."""
    return folder / f"index-{split}.json"


def write_index(folder: pathlib.Path, split: Split, index: Index) -> None:
    """Writes an index to `folder`, atomically."""
    content = {
        "format": FORMAT,
        "shards": [dataclasses.asdict(shard) for shard in index.shards],
        "repeated": index.repeated,
        "rows": index.rows,
    }
    with atomic_file(index_path(folder, split), sync=True) as draft:
        draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_index(folder: pathlib.Path, split: Split) -> Index | None:
    """Reads the index in `folder`; None if there is none. Does not check its shards.

    Raises:
      ValueError: it is damaged or has another format version.
    """
    path = index_path(folder, split)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_REMEDY}") from None
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"{path} has format {content['format']}, expected {FORMAT}: {_REMEDY}")
        shards = tuple(Shard(**shard) for shard in content["shards"])
        rows = {name: content["rows"][name] for name in COLUMNS}
        index = Index(shards, rows, tuple((row, first) for row, first in content["repeated"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged (no {error}): {_REMEDY}") from None
    for name, values in index.rows.items():
        if len(values) != len(index):
            raise ValueError(
                f"{path} is damaged ({len(values)} values of {name} for {len(index)} records): "
                + _REMEDY
            )
    return index


_REMEDY = "remove the output of the stage data and run it again"
