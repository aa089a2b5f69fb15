"""Runs the stage: edits, measurements, tables, page."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.listing import listed
from onereward_jax.data.benchmark_folders import Benchmark
from onereward_jax.data.example import RowError
from onereward_jax.evaluation.benchmark_metrics import METRICS
from onereward_jax.evaluation.benchmark_page import ShownRow, caption, render_page, thumbnail
from onereward_jax.evaluation.benchmark_table import (
    MeasuredRow,
    as_csv,
    as_markdown,
    not_measured,
    table_of,
)
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.distributed import broadcast_from_writer
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.benchmark.benchmark_edits import NamedRow, make_pictures, named_rows
from onereward_jax.stages.benchmark.judge_kind import judge_kinds
from onereward_jax.stages.benchmark.measure_pictures import (
    NO_PICTURE,
    Pictured,
    all_pictures,
    lacking,
    measure_pictures,
    picture_pixels,
)
from onereward_jax.stages.benchmark.measured import Measured
from onereward_jax.stages.benchmark.metric_kinds import (
    MetricKind,
    clip_kind,
    lpips_kind,
    pixel_kind,
    word_kind,
)
from onereward_jax.stages.benchmark.read_benchmarks import read_benchmarks
from onereward_jax.stages.benchmark_inputs import ComparedEditor, opened_editors

ROWS, CSV, MARKDOWN, PAGE = "rows.jsonl", "table.csv", "table.md", "index.html"


def run(context: StageContext) -> Results:
    """Edits, measures and reports; what is finished is kept.

    Raises:
      ValueError: pictures of rows are damaged (all are listed), or as `make_pictures` and
        `measure_pictures`.
    """
    benchmarks, editors = read_benchmarks(context.config), opened_editors(context)
    broadcast_from_writer(lambda: _decode_all(benchmarks))
    rows = named_rows(benchmarks)
    make_pictures(context, editors, rows)
    pictures = all_pictures(context, editors, rows)
    kinds = [
        pixel_kind(),
        lpips_kind(context),
        clip_kind(context),
        word_kind(),
        *judge_kinds(context),
    ]
    found = measure_pictures(context, editors, pictures, kinds)
    if not is_writer():
        return {}
    measured = list(_measured_rows(editors, rows, pictures, kinds, found))
    return _report(context, benchmarks, editors, rows, pictures, measured)


def _decode_all(benchmarks: Sequence[Benchmark]) -> str:
    """Decodes every row once, before models are loaded. Raises ValueError."""
    errors = []

    def error_of(row: object) -> str:
        try:
            row.read()
        except RowError as error:
            return f"{row.place}: {error}"
        return ""

    with ThreadPoolExecutor() as threads:
        for one in benchmarks:
            found = threads.map(error_of, one.rows)
            errors += [f"{one.name}, {error}" for error in found if error]
    if errors:
        raise ValueError(f"config.benchmark.folders: {len(errors)} bad rows" + listed(errors))
    return ""


def _measured_rows(
    editors: Sequence[ComparedEditor],
    rows: Sequence[NamedRow],
    pictures: Sequence[Pictured],
    kinds: Sequence[MetricKind],
    found: Mapping[tuple[str, str, str, str], Measured],
) -> Iterator[MeasuredRow]:
    """By editor and row: values, and why others are missing."""
    there = {(one.editor, one.row.output): one for one in pictures}
    for editor in editors:
        for row in rows:
            one, values = there.get((editor.name, row.output)), {}
            missing = dict.fromkeys(METRICS, NO_PICTURE) if one is None else {}
            for kind in kinds if one is not None else ():
                missing |= lacking(kind, one, editors[0].name)
                measured = found.get((kind.name, editor.name, row.benchmark, row.row.name))
                for metric, value in (measured.values if measured else {}).items():
                    if metric not in missing:
                        (missing if isinstance(value, str) else values)[metric] = value
            yield MeasuredRow(
                row.benchmark,
                row.row.name,
                editor.name,
                row.row.task,
                row.row.prompt,
                {name: values[name] for name in METRICS if name in values},
                {name: missing[name] for name in METRICS if name in missing},
            )


def _report(
    context: StageContext,
    benchmarks: Sequence[Benchmark],
    editors: Sequence[ComparedEditor],
    rows: Sequence[NamedRow],
    pictures: Sequence[Pictured],
    measured: Sequence[MeasuredRow],
) -> Results:
    groups = table_of(measured, [one.name for one in editors], context.config.seed)
    lines = (json.dumps(_fields(row), ensure_ascii=False) + "\n" for row in measured)
    page = render_page(
        "Benchmark: " + context.workdir.absolute().name,
        _about(context, benchmarks, editors),
        groups,
        measured,
        list(_shown(context, editors, rows, pictures, measured)),
    )
    files = {
        ROWS: "".join(lines),
        CSV: as_csv(groups),
        MARKDOWN: as_markdown(groups, measured),
        PAGE: page,
    }
    for name, text in files.items():
        with atomic_file(context.folder / name) as draft:
            draft.write_text(text, encoding="utf-8")
    for line in not_measured(measured):
        announce(f"benchmark: {line}")
    announce(f"benchmark: page at {context.folder / PAGE}")
    return {"rows": len(rows), "editors": len(editors), "page": f"benchmark/{PAGE}"}


def _fields(row: MeasuredRow) -> dict:
    return {
        "benchmark": row.benchmark,
        "row": row.row,
        "editor": row.editor,
        "task": row.task.value,
        "prompt": row.prompt,
        "metrics": dict(row.values),
        "missing": dict(row.missing),
    }


def _about(
    context: StageContext, benchmarks: Sequence[Benchmark], editors: Sequence[ComparedEditor]
) -> dict[str, str]:
    """For the head of the page."""
    config = context.config
    of_editor = {
        one.name: str(one.transformer or one.adapter or one.pipeline or one.pictures or "")
        for one in editors
    }
    facts = {one.name: f"{one.title}: {len(one.rows)} pictures" for one in benchmarks}
    facts |= {f"editor {name}": of or config.models.editor for name, of in of_editor.items()}
    facts |= {
        "CLIP": config.benchmark.clip,
        "LPIPS": config.benchmark.lpips,
        "sampling": f"{config.evaluate.num_steps} steps, seed {config.seed}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {name: value for name, value in facts.items() if value}


def _shown(
    context: StageContext,
    editors: Sequence[ComparedEditor],
    rows: Sequence[NamedRow],
    pictures: Sequence[Pictured],
    measured: Sequence[MeasuredRow],
) -> Iterator[ShownRow]:
    """Rows of each benchmark with their pictures: the first ones, of its tasks in turn."""
    files = {(one.editor, one.row.output): one.path for one in pictures}
    values = {(one.editor, one.benchmark, one.row): one.values for one in measured}
    targets = {row.benchmark for row in rows if row.row.target is not None}
    of_task: dict[tuple[str, str], int] = {}
    turns = []
    for place, row in enumerate(rows):
        key = row.benchmark, row.row.task.value
        of_task[key] = of_task.get(key, 0) + 1
        turns.append((row.benchmark, of_task[key], place))
    chosen: dict[str, list[int]] = {}
    for benchmark, _, place in sorted(turns):
        chosen.setdefault(benchmark, []).append(place)
    count = context.config.benchmark.pictures
    for place in sorted(place for places in chosen.values() for place in places[:count]):
        row = rows[place]
        pixels = row.row.read()
        shown: dict[str, tuple[str, str] | None] = {
            "source, mask": (thumbnail(pixels.source, pixels.mask), "")
        }
        if row.benchmark in targets:
            truth = pixels.truth
            shown["target"] = None if truth is None else (thumbnail(truth), "")
        for editor in editors:
            path = files.get((editor.name, row.output))
            told = caption(values[editor.name, row.benchmark, row.row.name])
            shown[editor.name] = path and (thumbnail(picture_pixels(path, row.size)), told)
        yield ShownRow(row.benchmark, row.row.name, row.row.prompt, shown)
