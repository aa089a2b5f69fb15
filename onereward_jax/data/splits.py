"""Train/test split of a folder's rows.

A row without a split gets that of its photograph, which is drawn from a hash of the file. So a
photograph, under any name and in any number of rows, is never in both splits, and adding rows does
not move existing ones. A row's image and target count as the same photograph: the ground truth of a
test removal is never a training image of another row.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence

from onereward_jax.data.example import SPLITS, RowError, Split
from onereward_jax.data.metadata import Row
from onereward_jax.data.row_sources import RowPictures

TEST_SHARE = 0.1
"""Fraction of test photographs among those without a stated split."""


def split_rows(title: str | pathlib.Path, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, each with its split. Reads images and targets if a row has no split.

    Rows without a split follow rows of the same photograph that state one. If a split would be
    empty, the photograph nearest to the threshold is moved to it.

    Args:
      title: what the rows are called in messages.
      rows: the rows.

    Raises:
      ValueError: a split has no row.
    """
    digest = _digest_of_name
    if any(row.split is None for row in rows):
        digest = _digests_of_files(rows).__getitem__
    found = _splits(title, _photos(rows, digest), rows)
    return tuple(dataclasses.replace(row, split=split) for row, split in zip(rows, found))


def check_splits(title: str | pathlib.Path, rows: Sequence[Row]) -> None:
    """Raises ValueError like `split_rows`, as far as possible without reading images."""
    _splits(title, _photos(rows, _digest_of_name), rows)


def _digest_of_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _digests_of_files(rows: Sequence[Row]) -> dict[str, str]:
    """Name -> digest of a picture's file; of the name if it is unreadable (its row is refused)."""
    of_name = {name: row.pictures for row in rows for name in (row.image, row.target) if name}

    def digest(name: str, pictures: RowPictures) -> str:
        try:
            return pictures.digest(name)
        except (OSError, RowError):
            return _digest_of_name(name)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(of_name, threads.map(digest, of_name, of_name.values())))


def _photos(rows: Sequence[Row], digest: Callable[[str], str]) -> list[str]:
    """The photograph of each row: the hexadecimal digest of one of its files.

    Args:
      rows: rows whose images and targets are connected, directly or not, share a photograph.
      digest: path in the folder -> hexadecimal digest of the file.
    """
    parents: dict[str, str] = {}

    def root(photo: str) -> str:
        while (parent := parents.get(photo, photo)) != photo:
            photo = parent
        return photo

    for row in rows:
        # Choose by the reversed digest: then the digest's beginning, from which the split is drawn,
        # stays uniformly distributed.
        both = {root(digest(row.image)), root(digest(row.target or row.image))}
        first, *others = sorted(both, key=lambda photo: photo[::-1])
        parents |= dict.fromkeys(others, first)
    return [root(digest(row.image)) for row in rows]


def _splits(title: str | pathlib.Path, photos: Sequence[str], rows: Sequence[Row]) -> list[Split]:
    """The split of each row; drawn from the photograph's digest if not stated."""
    named = {photo: row.split for photo, row in zip(photos, rows) if row.split is not None}
    free = sorted({photo for photo in photos if photo not in named})
    drawn = {photo: split_of(photo) for photo in free}
    for split, nearest in (("test", 0), ("train", -1)):
        if free and split not in {*named.values(), *drawn.values()}:
            drawn[free[nearest]] = split
    of_photo = named | drawn
    found = [row.split or of_photo[photo] for photo, row in zip(photos, rows)]
    for split in SPLITS:
        if split not in found:
            raise ValueError(
                f'{title}: no row for the split "{split}": add rows of another '
                'photograph, or set the field "split" of each row'
            )
    return found


def split_of(digest: str) -> Split:
    """The split that is drawn for a photograph with this hexadecimal digest."""
    return "test" if _fraction(digest) < TEST_SHARE else "train"


def _fraction(digest: str) -> float:
    """A hexadecimal digest as a number in [0, 1)."""
    return int(digest[:12], 16) / 16**12
