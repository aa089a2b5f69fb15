"""The index of a split: every column of its records that is not a picture, in one file beside them.

    index-train.json   {"format": 1, "shards": [{"file", "records", "bytes"}, ...], "repeated": [],
                        "rows": {"id": [...], "prompt": [...], "task": [...], ...}}

Names, prompts, tasks and sizes of 40,000 triplets are read from it in a fraction of a second; the
records themselves are tens of GB. It says which files it is about: an index of other records is
refused.
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
"""What a row of the index has: texts, whether the target is known, pixels of the pictures."""

Row = Mapping[str, str | bool | int]
"""Column -> value."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
      file: its name in the folder of the data set.
      records: how many there are in it.
      bytes: of the file.
    """

    file: str
    records: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Index:
    """The columns of a split.

    Attributes:
      shards: in the order of the records.
      rows: column -> its values, in that order.
      repeated: rows of the source that are left out, each with the earlier one that is the same.
    """

    shards: tuple[Shard, ...]
    rows: Mapping[str, Sequence[Any]]
    repeated: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return sum(shard.records for shard in self.shards)

    def why_not(self, folder: pathlib.Path) -> str:
        """What is amiss with its shards in `folder`; "" when nothing is."""
        for shard in self.shards:
            try:
                found = (folder / shard.file).stat().st_size
            except FileNotFoundError:
                return f"there is no {shard.file}"
            if found != shard.bytes:
                return f"{shard.file} has {found} bytes, not {shard.bytes}"
        return ""


def row_of(example: Example) -> Row:
    """The row of an example."""
    texts = {name: getattr(example, name) for name in TEXTS} | {"task": example.task.value}
    height, width = example.mask.shape
    return texts | {"has_target": example.has_target, "height": height, "width": width}


def columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Rows as columns."""
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in COLUMNS}


def index_path(folder: pathlib.Path, split: Split) -> pathlib.Path:
    """Where the index of a split lies."""
    return folder / f"index-{split}.json"


def write_index(folder: pathlib.Path, split: Split, index: Index) -> None:
    """Writes an index into `folder`, whole or not at all."""
    content = {
        "format": FORMAT,
        "shards": [dataclasses.asdict(shard) for shard in index.shards],
        "repeated": index.repeated,
        "rows": index.rows,
    }
    with atomic_file(index_path(folder, split), sync=True) as draft:
        draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_index(folder: pathlib.Path, split: Split) -> Index | None:
    """The index in `folder`, None where there is none. Its shards are not looked at.

    Raises:
      ValueError: it is damaged or of another version.
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
            raise ValueError(f"{path} is of format {content['format']}, not {FORMAT}: {_REMEDY}")
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
