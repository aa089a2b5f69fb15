"""All images of a report as one PNG, for use outside the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from onereward_jax.evaluation.picture_table import BACKGROUND, GAP, picture_table
from onereward_jax.evaluation.report.report_data import GridRow
from onereward_jax.tasks import TASKS, Task

COLUMNS = ("source", "mask", "base", "policy", "truth")
"""Fields of `GridRow`; also the column headings."""


def shown_columns(rows: Iterable[GridRow]) -> tuple[str, ...]:
    """`COLUMNS`, without "truth" if no row has one."""
    return COLUMNS if any(row.truth is not None for row in rows) else COLUMNS[:-1]


def picture_sheet(grids: Mapping[Task, Sequence[GridRow]]) -> UInt8[np.ndarray, "h w 3"]:
    """One table per task, side by side; one row per triplet, with its caption below.

    Raises:
      ValueError: there are no images.
    """
    shown = {task: list(grids[task]) for task in TASKS if grids.get(task)}
    if not shown:
        raise ValueError("a picture sheet needs at least one picture")
    names = shown_columns(row for triplets in shown.values() for row in triplets)
    tables = [
        picture_table(
            task.title,
            {name: [getattr(one, name) for one in triplets] for name in names},
            [one.caption for one in triplets],
        )
        for task, triplets in shown.items()
    ]
    height = max(len(table) for table in tables)
    padded = [
        np.pad(
            table,
            ((0, height - len(table)), (0, 3 * GAP * (table is not tables[-1])), (0, 0)),
            constant_values=BACKGROUND[0],
        )
        for table in tables
    ]
    return np.concatenate(padded, axis=1)
