"""Tables of pairs: CSV, JSON, JSON lines or Parquet with one judged pair per row.

    image_a, image_b   paths in the folder `--pictures`, or pictures in a Parquet file
    label              "a", "b" or "tie"; or P(a is preferred to b) in [0, 1]
    prompt             of the edit; may be missing where the task has a fixed one
    task, dimension    may be missing: `--task`, `--dimensions`
    image, mask        source image and mask; optional
    source             id of the source picture, if there is no image; optional
    annotator, split, seconds, answered_at, model_a, model_b    optional

`--columns image_a=left,label=choice` names other columns, `--labels a=leftvote,tie=same` other
labels.
"""

from __future__ import annotations

import pathlib
from typing import Any

from onereward_jax.annotation.comparisons import Judgement, number, text
from onereward_jax.annotation.given_comparisons import Given, Row, Rows
from onereward_jax.common.listing import first_of
from onereward_jax.data.example import RowError
from onereward_jax.exchange.about import read_about_beside
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.pairs import dimension_of, picture_of, renamed, split_of, task_of
from onereward_jax.exchange.record_files import Records, open_records
from onereward_jax.tasks import FIXED_PROMPTS

LABELS = ("a", "b", "tie")
ANNOTATOR = "table"
NEEDED = ("image_a", "image_b", "label")
COLUMNS = (
    *NEEDED,
    *("prompt", "task", "dimension", "image", "mask", "source", "annotator", "split"),
    *("seconds", "answered_at", "model_a", "model_b"),
)


def read(path: pathlib.Path, options: Options) -> Source:
    """The comparisons of a table, one per row; raises as `open_records`."""
    records, total = open_records(path)
    if unknown := sorted(options.columns.keys() - set(COLUMNS)):
        raise ValueError(f"--columns: {unknown[0]!r} is not one of {', '.join(COLUMNS)}")
    if unknown := sorted(options.labels.keys() - set(LABELS)):
        raise ValueError(f"--labels: {unknown[0]!r} is not one of {', '.join(LABELS)}")
    about = read_about_beside(path)
    return Source(_rows(records, path, options), total, about.license, about.origin)


def _rows(records: Records, path: pathlib.Path, options: Options) -> Rows:
    folder = options.pictures or (path if path.is_dir() else path.parent)
    for place, record in records:
        try:
            if isinstance(record, RowError):
                raise record
            yield Row(place, _given(record, folder, options))
        except RowError as error:
            yield Row(place, error)


def _given(record: dict[str, Any], folder: pathlib.Path, options: Options) -> Given:
    row = renamed(record, COLUMNS, options)
    for name in NEEDED:
        if row[name] is None:
            column = options.columns.get(name, name)
            raise RowError(f"{column} is missing; --columns {name}=NAME names another column")
    prompt = text("prompt", row["prompt"] or "", empty=True)
    task = task_of(row["task"], prompt, options)
    if not prompt and task not in FIXED_PROMPTS:
        raise RowError(f"prompt is missing; the task {task.value} needs one")
    best, worst, probability = preferred(row["label"], options)
    return Given(
        task=task,
        prompt=prompt or FIXED_PROMPTS[task],
        split=split_of(row["split"], options),
        source=text("source", _name(row["source"]), empty=True),
        image=None if row["image"] is None else picture_of(row["image"], "image", folder),
        mask=None if row["mask"] is None else picture_of(row["mask"], "mask", folder),
        candidates=tuple(picture_of(row[name], name, folder) for name in ("image_a", "image_b")),
        models=tuple(text(name, row[name] or "", empty=True) for name in ("model_a", "model_b")),
        answers=(
            Judgement(
                dimension_of(row["dimension"], task, options),
                best,
                worst,
                text("annotator", _name(row["annotator"]) or options.annotator or ANNOTATOR),
                probability,
                _number("answered_at", row["answered_at"]),
                _number("seconds", row["seconds"]),
            ),
        ),
    )


def preferred(label: Any, options: Options) -> tuple[int | None, int | None, float]:
    """(best, worst, probability) of a label; raises RowError."""
    given = {options.labels.get(name, name): name for name in LABELS}
    name = given.get(label if isinstance(label, str) else str(label))
    if name is not None:
        return {"a": (0, 1, 1.0), "b": (1, 0, 1.0), "tie": (None, None, 1.0)}[name]
    try:
        share = float(label)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(label, bool) or not 0.0 <= share <= 1.0:
        known = ", ".join(first_of([*map(repr, given)]))
        raise RowError(
            f"label {label!r} is none of {known}, nor P(a is preferred) in [0, 1]; --labels "
            "a=NAME names another label"
        )
    if share == 0.5:
        return None, None, 1.0
    return (0, 1, share) if share > 0.5 else (1, 0, 1.0 - share)


def _name(value: Any) -> str:
    """A name that may be a number, such as 0; "" if it is missing."""
    return "" if value is None or value != value else str(value)


def _number(field: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RowError(f"{field} must be a number, found {value!r}") from None
    return number(field, 0 if value is None else value)
