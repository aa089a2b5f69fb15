"""All pictures of a report as one PNG, to be shown elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from onereward_jax.evaluation.report.report_data import GridRow
from onereward_jax.tasks import TASKS, Task

COLUMNS = ("source", "mask", "base", "policy", "truth")
"""Fields of `GridRow`, which are also what is written above them."""


def shown_columns(rows: Iterable[GridRow]) -> tuple[str, ...]:
    """`COLUMNS`, without the truth where no row has one."""
    return COLUMNS if any(row.truth is not None for row in rows) else COLUMNS[:-1]


SIDE = 128
"""Least side of a picture in pixels; smaller ones are enlarged by a whole factor."""

GAP, HEADER, LABEL = 4, 18, 12
BACKGROUND, INK = (255, 255, 255), (60, 60, 60)


def picture_sheet(grids: Mapping[Task, Sequence[GridRow]]) -> UInt8[np.ndarray, "h w 3"]:
    """One block of columns per task, side by side; one row per triplet, its caption below.

    Raises:
      ValueError: there are no pictures.
    """
    shown = {task: list(grids[task]) for task in TASKS if grids.get(task)}
    if not shown:
        raise ValueError("a sheet of pictures needs at least one picture")
    sizes = [one.source.shape[:2] for triplets in shown.values() for one in triplets]
    height, width = map(max, zip(*sizes))
    factor = max(1, SIDE // min(height, width))
    cell_width, cell_height = width * factor + GAP, height * factor + GAP + LABEL
    columns = shown_columns(row for triplets in shown.values() for row in triplets)
    block = len(columns) * cell_width + 3 * GAP
    rows = max(map(len, shown.values()))
    size = (len(shown) * block - 3 * GAP, 2 * HEADER + rows * cell_height)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (task, triplets) in enumerate(shown.items()):
        left = number * block
        draw.text((left, 1), task.title, fill=INK, font=font)
        for column, name in enumerate(columns):
            x = left + column * cell_width
            draw.text((x, HEADER), name, fill=INK, font=font)
            for row, triplet in enumerate(triplets):
                if getattr(triplet, name) is None:
                    continue
                picture = Image.fromarray(getattr(triplet, name)).convert("RGB")
                larger = picture.width * factor, picture.height * factor
                enlarged = picture.resize(larger, Image.NEAREST)
                sheet.paste(enlarged, (x, 2 * HEADER + row * cell_height))
        for row, triplet in enumerate(triplets):
            below = 2 * HEADER + (row + 1) * cell_height - LABEL - GAP
            draw.text((left, below), triplet.caption, fill=INK, font=font)
    return np.asarray(sheet)
