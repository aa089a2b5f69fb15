"""Triplets on disk, with random access: a TFDS data set in ArrayRecord files, see `tfds_record`.

Columns are read from the index, records on access.
"""

from __future__ import annotations

import concurrent.futures
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32

from onereward_jax.common.listing import first_of
from onereward_jax.data.example import SPLITS, Split
from onereward_jax.data.index import Index, Shard, columns, read_index
from onereward_jax.data.tfds_record import FIELDS, TEXTS, RecordReader, picture_size
from onereward_jax.tasks import TASKS, Task


class MissingFeatures(ValueError):
    """A data set lacks features of `Example`."""


def check_data_set(
    folder: pathlib.Path, splits: Sequence[Split] = SPLITS
) -> tfds.core.ReadOnlyBuilder:
    """Finds the data set in `folder` or below it; reads no example.

    Raises:
      FileNotFoundError: there is no data set.
      ValueError: there is more than one, or a split is missing.
      MissingFeatures: features are missing.
    """
    found = sorted(path.parent for path in pathlib.Path(folder).rglob("features.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no TFDS data set here or below (no features.json)")
    if len(found) > 1:
        raise ValueError(
            f"{folder}: more than one data set: {', '.join(first_of([*map(str, found)]))}"
        )
    builder = tfds.builder_from_directory(str(found[0]))
    if missing := set(FIELDS) - set(builder.info.features):
        names = ", ".join(first_of(sorted(missing)))
        raise MissingFeatures(f"{found[0]}: features are missing: {names}")
    for split in splits:
        if split not in builder.info.splits:
            raise ValueError(f"{found[0]}: no split {split!r}")
    return builder


class Triplets:
    """A split on disk as a random access sequence of examples.

    An example is a dict with the fields of `Example`: images uint8 [h, w, 3], mask uint8 [h, w, 1]
    (0 or 255), box int32 [4], has_target bool, everything else str. If has_target is False, target
    and background are black.

    Attributes:
      tasks: task of each example, an index into `tasks.TASKS`.
      sizes: image height and width of each example.
      has_target: whether each example has target and background.
      index: all columns.
      scanned: whether there was no index, so that all records were read.
    """

    def __init__(
        self, folder: pathlib.Path, split: Split, *, index: pathlib.Path | None = None
    ) -> None:
        """Opens a split of the data set in `folder` or below it; reads no record.

        If the data set has no index (not written by this package), all records are read.

        Args:
          folder: folder of the data set.
          split: name of the split.
          index: another folder that may have the index.

        Raises:
          FileNotFoundError, ValueError: as `check_data_set`; or the index belongs to other records.
        """
        builder = check_data_set(folder, (split,))
        self.name = f"{builder.data_path}:{split}"
        self._reader = RecordReader(builder.info.features)
        self._records = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        found = _index_of(pathlib.Path(builder.data_path), split, index)
        self.scanned = found is None
        if found is None:
            found = _scan(pathlib.Path(builder.data_path), split, _shards(builder, split))
        self.index = found
        self._refuse_other_index(builder, split)
        rows = self.index.rows
        numbers = {task.value: number for number, task in enumerate(TASKS)}
        if unknown := set(rows["task"]) - set(numbers):
            raise ValueError(
                f"{self.name}: unknown task {min(unknown)!r}; there are {', '.join(numbers)}"
            )
        self.tasks = np.array([numbers[task] for task in rows["task"]], np.int32)
        self.sizes = np.array([rows["height"], rows["width"]], np.int32).T
        self.has_target = np.array(rows["has_target"], np.bool_)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return self.read(index)

    def __repr__(self) -> str:
        return f"Triplets({self.name})"

    def read(self, index: SupportsIndex, fields: Sequence[str] = FIELDS) -> dict[str, Any]:
        """Some fields of an example; decodes no other images. Thread-safe.

        Raises:
          ValueError: the record does not match the index.
        """
        index = int(index)
        found = self._reader.read(self._records[index], (*fields, "id"))
        if found["id"] != self.index.rows["id"][index]:
            raise ValueError(
                f"{self.name}: record {index} is the triplet {found['id']}, but the index has "
                f"{self.index.rows['id'][index]}: remove the output of the stage data and run it "
                "again"
            )
        return {name: found[name] for name in fields}

    def column(self, name: str) -> list[str]:
        """A text field of all examples."""
        return list(self.index.rows[name])

    def with_task(self, task: Task) -> Int32[np.ndarray, "n"]:
        """The indices of all examples of a task."""
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)

    def _refuse_other_index(self, builder: tfds.core.ReadOnlyBuilder, split: Split) -> None:
        info, folder = builder.info.splits[split], pathlib.Path(builder.data_path)
        why = self.index.why_not(folder)
        if not why and [shard.records for shard in self.index.shards] != info.shard_lengths:
            why = f"dataset_info.json has {info.num_examples} records, the index {len(self.index)}"
        if why:
            raise ValueError(
                f"{self.name}: the index does not match the records ({why}): remove the output of "
                "the stage data and run it again"
            )


def _index_of(folder: pathlib.Path, split: Split, elsewhere: pathlib.Path | None) -> Index | None:
    """The index next to the records, or the one that the stage `data` wrote elsewhere."""
    index = read_index(folder, split)
    if index is None and elsewhere is not None:
        index = read_index(elsewhere, split)
    return index


def _shards(builder: tfds.core.ReadOnlyBuilder, split: Split) -> tuple[Shard, ...]:
    """The files of a split, with their current sizes."""
    info = builder.info.splits[split]
    return tuple(
        Shard(path.name, records, path.stat().st_size)
        for path, records in zip(map(pathlib.Path, info.filepaths), info.shard_lengths)
    )


@functools.lru_cache(maxsize=len(SPLITS))  # a split is checked first, then opened
def _scan(folder: pathlib.Path, split: Split, shards: tuple[Shard, ...]) -> Index:
    """Builds the index of a split from its records."""
    builder = tfds.builder_from_directory(str(folder))
    reader = RecordReader(builder.info.features)
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def row(number: int) -> dict[str, Any]:
        files = reader.files(records[number])
        height, width = picture_size(files["image"])
        texts = {name: files[name] for name in TEXTS}
        return texts | {"has_target": files["has_target"], "height": height, "width": width}

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return Index(shards, columns(threads.map(row, range(len(records)))))
