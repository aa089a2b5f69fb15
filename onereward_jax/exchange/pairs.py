"""Pairs of pictures: how rows of pairs become comparisons, and comparisons become pairs."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from onereward_jax.annotation.comparisons import Comparison, Judgement, Picture, named, text
from onereward_jax.annotation.given_pictures import GivenPicture, picture_in
from onereward_jax.data.example import SPLITS, RowError, Split
from onereward_jax.exchange.options import Options
from onereward_jax.exchange.parquet import embedded_picture
from onereward_jax.tasks import DIMENSIONS, Dimension, Task, task_named


class Pair(NamedTuple):
    """A decided answer as a pair, in an order that is drawn by its content.

    Attributes:
      first, second: the two pictures.
      first_is_better: whether the answer prefers the first.
    """

    comparison: Comparison
    answer: Judgement
    first: Picture
    second: Picture
    first_is_better: bool


def pairs_of(comparison: Comparison) -> Iterator[Pair]:
    """The decided answers of a comparison, each as a pair of best and worst."""
    for answer in comparison.answers:
        if answer.best is None or answer.worst is None:
            continue
        best, worst = (comparison.candidates[one].picture for one in (answer.best, answer.worst))
        content = f"{comparison.id} {answer.dimension} {answer.annotator}"
        better_first = hashlib.sha256(content.encode()).digest()[0] % 2 == 0
        first, second = (best, worst) if better_first else (worst, best)
        yield Pair(comparison, answer, first, second, better_first)


def task_of(value: Any, prompt: str, options: Options) -> Task:
    """The task of a row; `--task` for rows without one. Raises RowError."""
    if value is None:
        if options.task is None:
            raise RowError("task is missing: name the task of all rows with --task")
        return options.task
    try:
        return task_named(text("task", value), prompt)
    except ValueError as error:
        raise RowError(str(error)) from None


def dimension_of(value: Any, task: Task, options: Options) -> Dimension:
    """The dimension of a row; that of `--dimensions` for rows without one. Raises RowError."""
    if value is not None:
        name = text("dimension", value)
        return options.dimensions.get(name) or named(Dimension, "dimension", name)
    chosen = [*options.dimensions.values()]
    if len(chosen) == 1:
        return chosen[0]
    if len(DIMENSIONS[task]) == 1:
        return DIMENSIONS[task][0]
    raise RowError("dimension is missing: name the dimension of all rows with --dimensions")


def split_of(value: Any, options: Options) -> Split | None:
    """The split of a row: that of `--split`, else the stated one. Raises RowError."""
    if options.split is not None:
        return options.split
    if value not in (*SPLITS, None):
        raise RowError(f'split must be "train" or "test", found {value!r}')
    return value


def picture_of(value: Any, field: str, folder: pathlib.Path) -> GivenPicture:
    """The picture of a cell: a path, or embedded in a Parquet file. Raises RowError."""
    if isinstance(value, dict) and not value.get("bytes") and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, dict | bytes):
        return embedded_picture(field, value)
    if value is None:
        raise RowError(f"{field} is missing")
    return picture_in(folder, field, text(field, value))


def renamed(row: Mapping[str, Any], names: tuple[str, ...], options: Options) -> dict[str, Any]:
    """The fields `names` of a row, from the columns that `--columns` names."""
    return {name: row.get(options.columns.get(name, name)) for name in names}
