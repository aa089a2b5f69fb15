"""Writes a report: a self-contained HTML page, the same numbers as JSON, the images as PNG."""

from __future__ import annotations

import base64
import importlib.resources
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.evaluation.gsb import PAPER_GSB, GoodSameBad
from onereward_jax.evaluation.image_metrics import ImageMetrics
from onereward_jax.evaluation.intervals import FEW
from onereward_jax.evaluation.judge_accuracy import PAPER_ACCURACY
from onereward_jax.evaluation.report.charts import (
    conflict_curves,
    gsb_bars,
    monitor_curves,
    reward_curves,
    trust_curves,
    window,
)
from onereward_jax.evaluation.report.picture_sheet import picture_sheet, shown_columns
from onereward_jax.evaluation.report.report_data import ReportInputs
from onereward_jax.evaluation.report.summary import summarize, summarize_curve
from onereward_jax.evaluation.report.warnings import remarks
from onereward_jax.evaluation.usability import PAPER_USABILITY
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task

METRIC_COLUMNS = {
    "psnr": ("PSNR in mask, dB", "{:.1f}"),
    "ssim": ("SSIM in mask", "{:.3f}"),
    "drift": ("drift outside, ΔE", "{:.1f}"),
    "saturation": ("chroma", "{:.1f}"),
    "saturation_excess": ("chroma − truth", "{:+.1f}"),
    "edge_density": ("edges", "{:.1%}"),
    "edge_density_excess": ("edges − truth", "{:+.1%}"),
    "word_accuracy": ("letters read", "{:.1%}"),
}
"""Columns of the metrics table: field of `ImageMetrics` -> (heading, number format)."""


COUNTS = ("results", "truths")
"""Fields of `ImageMetrics` that are counts."""


def write_report(folder: str | os.PathLike[str], inputs: ReportInputs) -> Path:
    """Writes `index.html`, `summary.json` and `pictures.png` into `folder` (created if missing).

    The page has no external resources: charts are inline SVG, images inline PNG. Each file is
    written atomically. Returns the path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = json.dumps(summarize(inputs), indent=1, ensure_ascii=False, allow_nan=False)
    _replace(folder / "summary.json", (summary + "\n").encode())
    if any(inputs.grids.values()):
        _replace(folder / "pictures.png", _png(picture_sheet(inputs.grids)))
    page = folder / "index.html"
    _replace(page, render(inputs).encode())
    return page


def render(inputs: ReportInputs) -> str:
    """The page as HTML text."""
    environment = page_environment()
    metrics = [
        name
        for name in METRIC_COLUMNS
        for found in [[one for tasks in inputs.metrics.values() for one in tasks.values()]]
        if any(getattr(one, name) is not None for one in found)
    ]
    environment.filters |= {"png": data_uri, "percent": _percent}
    return environment.from_string(_packaged("template.html")).render(
        inputs=inputs,
        tasks=TASKS,
        dimensions=tuple(Dimension),
        judged_in=DIMENSIONS,
        paper_accuracy=PAPER_ACCURACY,
        paper_gsb=PAPER_GSB,
        paper_usability=PAPER_USABILITY,
        people_rows=_people_rows,
        usable_tasks=lambda usable, task: any(task in cells for cells in usable.values()),
        reward_chart=reward_curves(inputs.rewards) if inputs.rewards else "",
        reward_ends={key: summarize_curve(curve) for key, curve in inputs.rewards.items()},
        trust_chart=trust_curves(inputs.trust),
        monitor_chart=monitor_curves(inputs.monitors) if inputs.monitors else "",
        conflict_chart=conflict_curves(inputs.conflicts) if inputs.conflicts else "",
        gsb_charts={name: gsb_bars(results, name) for name, results in inputs.gsb.items()},
        metric_titles=[METRIC_COLUMNS[name][0] for name in metrics],
        metric_rows=list(_metric_rows(inputs.metrics, metrics)),
        truths=_truths(inputs.metrics),
        remarks=remarks(inputs),
        few=FEW,
        smoothed=any(window(curve) > 1 for curve in inputs.rewards.values()),
        has_oracle=any(gain.base is not None for gain in inputs.gains.values()),
        has_held_out=any(gain.held_out is not None for gain in inputs.gains.values()),
        shown_columns=shown_columns,
        settings=list(_flatten(inputs.settings)),
    )


def page_environment() -> jinja2.Environment:
    """What renders pages of this look: templates have `look`, the content of their style."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["look"] = _packaged("look.css")
    return environment


def data_uri(picture: UInt8[np.ndarray, "h w *c"]) -> str:
    """`picture` as a data URI with a PNG."""
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


def _packaged(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _png(picture: UInt8[np.ndarray, "h w *c"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _people_rows(
    cells: Mapping[tuple[Task, str], GoodSameBad], task: Task
) -> list[tuple[str, GoodSameBad]]:
    """(dimension, result) of a task, in the order of the dimensions; overall first."""
    names = [name for owner, name in cells if owner is task]
    order = [str(dimension) for dimension in DIMENSIONS[task]]
    names.sort(key=lambda name: order.index(name) if name in order else -1)
    return [(name.replace("_", " "), cells[task, name]) for name in names]


def _metric_rows(
    metrics: Mapping[str, Mapping[Task, ImageMetrics]], columns: Sequence[str]
) -> Iterator[tuple[str, str, list[str]]]:
    """(task, editor, formatted values), grouped by task for comparison of the editors."""
    for task in TASKS:
        for editor, by_task in metrics.items():
            if task in by_task:
                values = [
                    "" if value is None else METRIC_COLUMNS[name][1].format(value)
                    for name in columns
                    for value in [getattr(by_task[task], name)]
                ]
                yield task.title, editor, values


def _truths(metrics: Mapping[str, Mapping[Task, ImageMetrics]]) -> str:
    """A note on triplets without ground truth; "" if all have one."""
    found = next(iter(metrics.values()), {})
    results, truths = (sum(getattr(one, name) for one in found.values()) for name in COUNTS)
    if truths == results:
        return ""
    if not truths:
        return "No triplet has a target, so there are no metrics against ground truth."
    told = ", ".join(
        f"{task.title} {found[task].truths} of {found[task].results}"
        for task in TASKS
        if task in found
    )
    return f"Metrics against ground truth use only triplets with a target: {told}."


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _replace(path: Path, content: bytes) -> None:
    with atomic_file(path) as draft:
        draft.write_bytes(content)
