"""The pictures of a benchmark's editors: made here once, or found in folders from elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from onereward_jax.chain import fingerprints
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.listing import first_of
from onereward_jax.common.rng import generator
from onereward_jax.data.benchmark_folders import Benchmark
from onereward_jax.data.benchmark_rows import BenchmarkRow
from onereward_jax.inference.edit_record import (
    Finished,
    Settings,
    file_digest,
    open_record,
    read_record,
    unfinished,
)
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.photograph_edit import EditPlan, PhotographEdit, edit_batch, prepare
from onereward_jax.parallel import is_writer, make_mesh
from onereward_jax.parallel.distributed import broadcast_from_writer, gather_on_writer
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.pictures import Photograph, write_picture
from onereward_jax.stages.benchmark.host_shares import host_shares
from onereward_jax.stages.benchmark_inputs import ComparedEditor
from onereward_jax.stages.guidance_settings import evaluate_guidance
from onereward_jax.stages.settings import compute_dtype

PICTURES = "pictures"


@dataclasses.dataclass(frozen=True)
class NamedRow:
    """A row with the name of its benchmark.

    Attributes:
      benchmark: the name.
      row: the row.
      digest: of all that it depends on, `BenchmarkRow.digest`.
    """

    benchmark: str
    row: BenchmarkRow
    digest: str

    @property
    def output(self) -> str:
        """Path of its result below an editor's folder."""
        return f"{self.benchmark}/{self.row.name}.png"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.row.size


def named_rows(benchmarks: Sequence[Benchmark]) -> list[NamedRow]:
    """The rows of all benchmarks. Raises RowError if a file has vanished."""
    return [NamedRow(one.name, row, row.digest()) for one in benchmarks for row in one.rows]


def make_pictures(
    context: StageContext, editors: Sequence[ComparedEditor], rows: Sequence[NamedRow]
) -> None:
    """Makes the missing pictures of all editors, one loaded at a time.

    Each host edits its share on its own devices. The noise of a row is the same for all editors.

    Raises:
      FileNotFoundError, ValueError: as `Editor.from_pretrained`, or a row is too small to be
        edited.
      Stopped: after a signal; the same command resumes.
    """
    plan = edit_plan(context)
    for editor in editors:
        if editor.pictures is not None:
            continue
        folder = context.folder / PICTURES / editor.name
        common = _settings(context, editor, plan)
        wanted = {one.output: {**common, **_own_settings(context, one)} for one in rows}
        missing = json.loads(broadcast_from_writer(functools.partial(_missing, folder, wanted)))
        if missing:
            _make(context, editor, plan, rows, wanted, set(missing))
    context.share(PICTURES)


def edit_plan(context: StageContext) -> EditPlan:
    """As the stage evaluate samples, in the size of the row."""
    guidance = evaluate_guidance(context.config)
    sampling = {
        "negative_prompt": guidance.negative_prompt,
        "true_cfg_scale": guidance.true_cfg_scale,
        "guidance_scale": guidance.guidance_scale,
        "num_inference_steps": context.config.evaluate.num_steps,
        "solver": context.config.models.solver,
    }
    return EditPlan(None, 0 if context.config.models.paste_back else None, sampling)


def picture_of(context: StageContext, editor: ComparedEditor, one: NamedRow) -> Path | None:
    """An editor's picture of a row; None if a folder from elsewhere has none."""
    if editor.pictures is not None:
        return editor.finished.find(one.benchmark, one.row.name)
    return context.folder / PICTURES / editor.name / one.output


def base_weights(context: StageContext, editor: ComparedEditor) -> tuple[Path, Path | None]:
    """(folder of the whole editor, its other transformer or None)."""
    if editor.pipeline is not None:
        return editor.pipeline, None
    other = context.base_transformer() if context.config.models.transformer else None
    return context.base_model("editor"), editor.transformer or other


def load_editor(context: StageContext, editor: ComparedEditor) -> Editor:
    """An editor on the devices of this host; the text encoders are those of its folder."""
    folder, transformer = base_weights(context, editor)
    return Editor.from_pretrained(
        folder,
        transformer=transformer,
        adapters=[(editor.adapter, 1.0)] if editor.adapter else [],
        mesh=make_mesh(devices=jax.local_devices()),
        dtype=compute_dtype(context.config),
    )


def _make(
    context: StageContext,
    compared: ComparedEditor,
    plan: EditPlan,
    rows: Sequence[NamedRow],
    wanted: Mapping[str, Settings],
    missing: set[str],
) -> None:
    folder, batch_size = context.folder / PICTURES / compared.name, host_batch_size(context)
    shares = [
        share
        for share in host_shares(rows, lambda one: one.size, batch_size)
        if any(one.output in missing for one in share.chunk)
    ]
    total = sum(len(share.chunk) for share in shares)
    editor = load_editor(context, compared)
    program = f"benchmark, {context.config.models.editor}"
    with (
        progress_bar(
            f"benchmark: edits of {compared.name}", total, unit="picture", program=program
        ) as bar,
        stop_points("benchmark") as stop,
        _record(folder) as record,
    ):
        for share in shares:
            ready = [prepare(_edit(context, one), plan, editor) for one in share.batch]
            pictures = edit_batch(editor, ready, plan)
            finished = []
            for one, picture in zip(share.own, pictures):
                write_picture(folder / one.output, picture)
                finished.append([one.output, file_digest(folder / one.output)])
            for text in gather_on_writer(json.dumps(finished)):
                for output, digest in json.loads(text):
                    record(Finished(output, digest, wanted[output]))
            bar.update(len(share.chunk))
            stop.if_asked(f"at {bar.n} of {total} edits of {compared.name}")


def host_batch_size(context: StageContext) -> int:
    """Of a host: at least one picture per device."""
    return max(context.config.benchmark.batch_size, jax.local_device_count())


def _record(folder: Path) -> contextlib.AbstractContextManager[Callable[[Finished], None]]:
    """`open_record` on process 0; the others record nothing."""
    return open_record(folder) if is_writer() else contextlib.nullcontext(lambda finished: None)


def _edit(context: StageContext, one: NamedRow) -> PhotographEdit:
    pixels = one.row.read()
    return PhotographEdit(
        Photograph(Image.fromarray(pixels.source)),
        Image.fromarray(pixels.mask.astype(np.uint8) * 255),
        one.row.prompt,
        _seed(context, one),
        f"{one.benchmark}, {one.row.place}",
    )


def _seed(context: StageContext, one: NamedRow) -> int:
    names = ("benchmark", one.benchmark, one.row.name)
    return int(generator(context.config.seed, *names).integers(2**31))


def _settings(context: StageContext, editor: ComparedEditor, plan: EditPlan) -> dict[str, Any]:
    """What all pictures of an editor depend on."""
    folder, transformer = base_weights(context, editor)
    return {
        "model": fingerprints.of_model(folder),
        "transformer": fingerprints.of_model(transformer) if transformer else None,
        "adapter": fingerprints.of_model(editor.adapter) if editor.adapter else None,
        "dtype": context.config.models.dtype,
        "feather": plan.feather,
        **plan.sampling,
    }


def _own_settings(context: StageContext, one: NamedRow) -> dict[str, Any]:
    return {"row": one.digest, "seed": _seed(context, one)}


def _missing(folder: Path, wanted: Mapping[str, Settings]) -> str:
    """On process 0: the outputs to make, as JSON; says what is kept."""
    missing, changed = unfinished(folder, wanted, read_record(folder))
    if len(missing) < len(wanted):
        kept = len(wanted) - len(missing)
        announce(f"benchmark: {kept} of {len(wanted)} pictures of {folder.name} are kept")
    if changed:
        names = sorted({name for names in changed.values() for name in names})
        announce(
            f"benchmark: {len(changed)} pictures of {folder.name} are made anew: "
            f"{', '.join(first_of(names))} changed"
        )
    return json.dumps(missing)
