"""The page of a benchmark: its tables, what was not measured, and pictures of all editors."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from onereward_jax.evaluation.benchmark_metrics import METRICS, Metric
from onereward_jax.evaluation.benchmark_table import (
    Groups,
    MeasuredRow,
    not_measured,
    shown_metrics,
)
from onereward_jax.evaluation.intervals import FEW
from onereward_jax.evaluation.report.html_page import page_environment

SIDE = 320
"""Longest side of a picture on the page, in pixels; smaller ones are as they are."""

TINT, STRENGTH = (232, 30, 120), 0.5
"""Colour of the mask on the source, and its opacity."""


@dataclasses.dataclass(frozen=True)
class ShownRow:
    """The pictures of a row.

    Attributes:
      benchmark, row, prompt: of the row.
      pictures: heading -> (data URI, text below); all rows of a benchmark have the same headings.
    """

    benchmark: str
    row: str
    prompt: str
    pictures: Mapping[str, tuple[str, str] | None]


def render_page(
    title: str,
    about: Mapping[str, str],
    groups: Groups,
    rows: Sequence[MeasuredRow],
    shown: Sequence[ShownRow],
) -> str:
    """The page as HTML; it needs no other file.

    Args:
      title: its heading.
      about: name -> value, below the heading.
      groups: from `table_of`.
      rows: all measured rows.
      shown: those with pictures.
    """
    template = importlib.resources.files(__package__).joinpath("benchmark.html")
    by_benchmark: dict[str, list[ShownRow]] = {}
    for row in shown:
        by_benchmark.setdefault(row.benchmark, []).append(row)
    counts = {
        (benchmark, task): max(
            (cell.count for cells in editors.values() for cell in cells.values()), default=0
        )
        for (benchmark, task), editors in groups.items()
    }
    used = [name for name in METRICS if any(name in shown_metrics(one) for one in groups.values())]
    return (
        page_environment()
        .from_string(template.read_text("utf-8"))
        .render(
            title=title,
            about=about,
            groups=groups,
            counts=counts,
            metrics=METRICS,
            used=used,
            shown_metrics=shown_metrics,
            not_measured=list(not_measured(rows)),
            by_benchmark=by_benchmark,
            few=FEW,
        )
    )


def caption(values: Mapping[str, float]) -> str:
    """The values of one picture in a line."""
    return " · ".join(f"{_short(METRICS[name], value)}" for name, value in values.items())


def thumbnail(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"] | None = None
) -> str:
    """A picture as a data URI, with its mask tinted if there is one."""
    pixels = picture
    if mask is not None:
        tinted = (1 - STRENGTH) * picture + STRENGTH * np.array(TINT)
        pixels = np.where(mask[..., None], tinted, picture).round().astype(np.uint8)
    shown = Image.fromarray(pixels)
    small = max(shown.size) <= SIDE
    if not small:
        shown.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png" if small else "jpeg"
    shown.save(buffer, kind, **({"optimize": True} if small else {"quality": 88}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def _short(metric: Metric, value: float) -> str:
    return f"{metric.title.removesuffix(', dB').removesuffix(', ΔE')} {metric.text(value)}"
