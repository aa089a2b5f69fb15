"""Writes a data set, using all cores; resumes after the last finished shard.

    <folder>/triplets/3.0.0/
      triplets-train.array_record-00000-of-00079   512 rows of the source each
      index-train.json, index-test.json            see `index`
      features.json, dataset_info.json             TFDS metadata
      rows/                                        index rows of finished shards, until all are done

Records are written in source order, so the files depend only on the source: not on the number of
cores, nor on interruptions.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.data.example import SPLITS, RowError, Split
from onereward_jax.data.index import Index, Row, Shard, columns, read_index, row_of, write_index
from onereward_jax.data.source_interface import TripletSource
from onereward_jax.data.tfds_record import features, serialize

NAME, VERSION = "triplets", "3.0.0"

SHARD_ROWS = 512
"""Rows of the source per shard: the most work that a kill loses, per split."""

ROWS = "rows"

T, R = TypeVar("T"), TypeVar("R")

Progress = Callable[[int, int], None]
"""(rows done, total rows); may raise to stop."""


@dataclasses.dataclass(frozen=True)
class Written:
    """A written data set.

    Attributes:
      folder: folder of the data set.
      repeated: duplicate row that was skipped -> earlier row with the same triplet.
    """

    folder: pathlib.Path
    repeated: Mapping[int, int]


def write_triplets(
    folder: pathlib.Path, source: TripletSource, *, progress: Progress = lambda done, total: None
) -> Written:
    """Writes both splits to `folder`; resumes if it was interrupted with the same source.

    Every row is read once. After a bad row the others are still read, so that all bad rows are
    reported together.

    Args:
      folder: the data set is written to <folder>/triplets/<version>.
      source: source of the triplets.
      progress: called after every row.

    Raises:
      ValueError: as `source.refuse`, or all rows of a split are duplicates.
    """
    writing = _Writing(folder / NAME / VERSION, source, progress)
    repeated = writing.known()
    if repeated is None:
        writing.make_shards()
        repeated = writing.finish()
    else:
        source.refuse({})
    return Written(writing.folder, repeated)


class _Writing:
    """One call of `write_triplets`."""

    def __init__(self, folder: pathlib.Path, source: TripletSource, progress: Progress) -> None:
        self.folder, self._source, self._progress = folder, source, progress
        self._features = features(source.sizes)
        self._shards = {
            split: [
                _Shard(folder, f"{NAME}-{split}.array_record-{n:05d}-of-{len(parts):05d}", part)
                for n, part in enumerate(parts)
            ]
            for split, parts in _parts(source.splits).items()
        }

    def known(self) -> dict[int, int] | None:
        """The skipped duplicates if the data set is complete, else None."""
        indices = [read_index(self.folder, split) for split in SPLITS]
        if not all(index is not None and not index.why_not(self.folder) for index in indices):
            return None
        shutil.rmtree(self.folder / ROWS, ignore_errors=True)
        return {row: first for index in indices for row, first in index.repeated}

    def make_shards(self) -> None:
        """Writes the missing shards. Raises ValueError if rows are bad."""
        (self.folder / ROWS).mkdir(parents=True, exist_ok=True)
        missing: dict[int, _Shard] = {}
        names: dict[str, int] = {}
        for shard in (shard for shards in self._shards.values() for shard in shards):
            if content := shard.content():
                names |= {columns["id"]: row for row, columns in content["rows"]}
            else:
                missing |= dict.fromkeys(shard.rows, shard)
        total, errors, bad = len(self._source.splits), {}, threading.Event()
        if _is_refused(self._source):
            bad.set()

        def make(row: int) -> tuple[Row, bytes] | RowError | None:
            try:
                example = self._source.example(row)
            except RowError as error:
                bad.set()
                return error
            if bad.is_set():  # no more shards will be written
                return None
            return row_of(example), serialize(self._features, example)

        with contextlib.ExitStack() as drafts:
            opened = set()
            made = in_order(make, sorted(missing))
            drafts.callback(made.close)
            for done, (row, found) in enumerate(made, total - len(missing) + 1):
                shard = missing[row]
                if isinstance(found, RowError):
                    errors[row] = found
                elif not bad.is_set():
                    if shard not in opened:
                        opened.add(shard)
                        drafts.callback(shard.abandon)
                        shard.open()
                    shard.add(row, *found, names)
                self._progress(done, total)
        if errors:
            # The corrected source makes another data set: these shards are useless.
            shutil.rmtree(self.folder)
        self._source.refuse(errors)

    def finish(self) -> dict[int, int]:
        """Writes metadata and indices of the data set; returns the skipped duplicates."""
        indices = {}
        for split, shards in self._shards.items():
            found = [shard.content() for shard in shards]
            indices[split] = index = Index(
                shards=tuple(Shard(**one["shard"]) for one in found),
                rows=columns(row for one in found for _, row in one["rows"]),
                repeated=tuple(tuple(pair) for one in found for pair in one["repeated"]),
            )
            if not len(index):
                raise ValueError(
                    f'no triplet is left in the split "{split}": all of its rows are duplicates of '
                    "the other split"
                )
        write_metadata(self.folder, self._features, indices)
        shutil.rmtree(self.folder / ROWS)
        return {row: first for index in indices.values() for row, first in index.repeated}


def write_metadata(
    folder: pathlib.Path, stored: tfds.features.FeaturesDict, indices: Mapping[Split, Index]
) -> None:
    """Writes the TFDS metadata of a data set, and its indices.

    Args:
      folder: folder of the data set, with its shards.
      stored: features of its records.
      indices: index of each split.
    """

    def info(split: Split, index: Index) -> tfds.core.SplitInfo:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=NAME, split=split, filetype_suffix="array_record"
        )
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in index.shards],
            num_bytes=sum(shard.bytes for shard in index.shards),
            filename_template=template,
        )

    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=stored,
        split_infos=[info(split, index) for split, index in indices.items()],
        version=VERSION,
        check_data=False,
        description="Mask-guided editing: image, mask, prompt, and ground truth where known.",
        # Keep source order, so that an index is the same example everywhere.
        disable_shuffling=True,
    )
    # Written last: the indices mark the data set as complete.
    for split, index in indices.items():
        write_index(folder, split, index)


class _Shard:
    """A file of records, and a file with its index rows until all shards are finished."""

    def __init__(self, folder: pathlib.Path, name: str, rows: Sequence[int]) -> None:
        """
        Args:
          folder: folder of the data set.
          name: name of the file.
          rows: rows of the source, in order.
        """
        self.rows = rows
        self._path = folder / name
        self._draft = folder / f".{name}.draft"
        self._notes = folder / ROWS / f"{name}.json"
        self._writer: array_record_module.ArrayRecordWriter | None = None
        self._kept: list[tuple[int, Row]] = []
        self._repeated: list[tuple[int, int]] = []

    def content(self) -> dict[str, Any] | None:
        """The index rows of a finished shard; None if it is not finished."""
        try:
            content = json.loads(self._notes.read_bytes())
            if self._path.stat().st_size == content["shard"]["bytes"]:
                return content
        except FileNotFoundError:
            pass
        return None

    def open(self) -> None:
        """Opens a draft file."""
        self._writer = array_record_module.ArrayRecordWriter(str(self._draft), "group_size:1")

    def add(self, row: int, columns: Row, record: bytes, names: dict[str, int]) -> None:
        """Writes a row unless its triplet is a duplicate; the last row finishes the shard.

        Args:
          row: row of the source.
          columns, record: index row and record of its triplet.
          names: name of each written triplet -> its row; updated.
        """
        first = names.setdefault(columns["id"], row)
        if first == row:
            self._writer.write(record)
            self._kept.append((row, columns))
        else:
            self._repeated.append((row, first))
        if row == self.rows[-1]:
            self._finish()

    def abandon(self) -> None:
        """Removes the draft file, if any."""
        self._draft.unlink(missing_ok=True)
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):  # full disk, already reported
                self._writer.close()

    def _finish(self) -> None:
        self._writer.close()
        self._writer = None
        with self._draft.open("rb+") as file:
            os.fsync(file.fileno())
        size = self._draft.stat().st_size
        os.replace(self._draft, self._path)
        content = {
            "shard": {"file": self._path.name, "records": len(self._kept), "bytes": size},
            "rows": self._kept,
            "repeated": self._repeated,
        }
        with atomic_file(self._notes, sync=True) as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        self._kept, self._repeated = [], []


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Ordered parallel map: yields (item, function(item)), with one thread per core.

    Decoding, resizing, encoding and hashing release the GIL, so threads suffice.
    """
    threads = len(os.sched_getaffinity(0))
    pending: collections.deque[tuple[T, concurrent.futures.Future[R]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(function, item)))
                if len(pending) > 2 * threads:
                    done, result = pending.popleft()
                    yield done, result.result()
            while pending:
                done, result = pending.popleft()
                yield done, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _parts(splits: Sequence[Split]) -> dict[Split, list[list[int]]]:
    """The rows of each shard, per split."""
    rows: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for row, split in enumerate(splits):
        rows[split].append(row)
    return {
        split: [found[at : at + SHARD_ROWS] for at in range(0, len(found), SHARD_ROWS)]
        for split, found in rows.items()
    }


def _is_refused(source: TripletSource) -> bool:
    try:
        source.refuse({})
    except ValueError:
        return True
    return False
