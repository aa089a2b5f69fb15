"""EditReward-Data's JSON: pairs of edits of a source picture, with scores per dimension.

    {"prompt": "Make the sandwich a hot dog.",
     "path_src": "…/source.png", "path1": "…/ovis.png", "path2": "…/qwen.png",
     "model1": "ovis", "model2": "qwen",
     "model1_dim1_score": 4, "model1_dim2_score": 2, "model1_overall_score": 6,
     "model2_dim1_score": 3, "model2_dim2_score": 2, "model2_overall_score": 5,
     "tie_case": false}

`path1` is the preferred edit. Its dimensions are `instruction_following` (dim1), `visual_quality`
(dim2) and `overall`; `--dimensions instruction_following=text_alignment,visual_quality=aesthetics`
maps those that are to be used. The higher score of a dimension decides; equal scores are ∅. Where a
row has no scores, `overall` is decided by the order of the paths, unless it is a tie.

https://github.com/TIGER-AI-Lab/EditReward (arXiv 2509.26346)
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from onereward_jax.annotation.comparisons import Judgement, number, text
from onereward_jax.annotation.given_comparisons import Given, Row, Rows
from onereward_jax.data.example import RowError
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.pairs import picture_of, renamed, split_of, task_of
from onereward_jax.exchange.record_files import Records, open_records
from onereward_jax.tasks import Dimension

SCORES = {
    "instruction_following": "dim1_score",
    "visual_quality": "dim2_score",
    "overall": "overall_score",
}
"""Dimension of the data set -> the end of its fields' names."""

ANNOTATOR = "EditReward-Data"
COLUMNS = (
    *("prompt", "path_src", "path1", "path2", "model1", "model2", "tie_case", "task", "split"),
    *(f"model{side}_{end}" for side in (1, 2) for end in SCORES.values()),
)


def read(path: pathlib.Path, options: Options) -> Source:
    """The comparisons of a file; raises as `open_records`.

    Raises:
      ValueError: `--dimensions` names no dimension of the data set, or another one.
    """
    if not options.dimensions:
        raise ValueError(
            "--dimensions is missing: map the dimensions of EditReward-Data to ours, as in "
            "--dimensions instruction_following=text_alignment,visual_quality=aesthetics"
        )
    if unknown := sorted(options.dimensions.keys() - SCORES.keys()):
        raise ValueError(f"--dimensions: {unknown[0]!r} is not one of {', '.join(SCORES)}")
    if unknown := sorted(options.columns.keys() - set(COLUMNS)):
        raise ValueError(f"--columns: {unknown[0]!r} is not one of {', '.join(COLUMNS)}")
    records, total = open_records(path)
    return Source(_rows(records, path, options), total)


def _rows(records: Records, path: pathlib.Path, options: Options) -> Rows:
    folder = options.pictures or (path if path.is_dir() else path.parent)
    for place, record in records:
        try:
            if isinstance(record, RowError):
                raise record
            yield Row(place, _given(renamed(record, COLUMNS, options), folder, options))
        except RowError as error:
            yield Row(place, error)


def _given(row: dict[str, Any], folder: pathlib.Path, options: Options) -> Given:
    for name in ("prompt", "path_src", "path1", "path2"):
        if row[name] is None:
            raise RowError(f"{name} is missing")
    prompt = text("prompt", row["prompt"])
    answers = tuple(
        answer
        for name, dimension in options.dimensions.items()
        if (answer := _answer(row, name, dimension, options)) is not None
    )
    if not answers:
        raise RowError(f"there are no scores of {', '.join(options.dimensions)}")
    return Given(
        task=task_of(row["task"], prompt, options),
        prompt=prompt,
        split=split_of(row["split"], options),
        image=picture_of(row["path_src"], "path_src", folder),
        candidates=tuple(picture_of(row[name], name, folder) for name in ("path1", "path2")),
        models=tuple(text(name, row[name] or "", empty=True) for name in ("model1", "model2")),
        answers=answers,
    )


def _answer(
    row: Mapping[str, Any], name: str, dimension: Dimension, options: Options
) -> Judgement | None:
    """The answer in one of the data set's dimensions; None if the row has none."""
    fields = [f"model{side}_{SCORES[name]}" for side in (1, 2)]
    first, second = (None if row[one] is None else number(one, row[one]) for one in fields)
    annotator = options.annotator or ANNOTATOR
    if first is None or second is None:
        if name != "overall":
            return None
        if row["tie_case"] not in (True, False, None):
            raise RowError(f"tie_case must be true or false, found {row['tie_case']!r}")
        first, second = (0.0, 0.0) if row["tie_case"] else (1.0, 0.0)
    if first == second:
        return Judgement(dimension, None, None, annotator)
    return Judgement(dimension, *((0, 1) if first > second else (1, 0)), annotator)
