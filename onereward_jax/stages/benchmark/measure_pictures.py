"""Measures the pictures of all editors: each host its share, a kind of metrics at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.listing import listed
from onereward_jax.data.aspect_buckets import MULTIPLE
from onereward_jax.data.benchmark_rows import resized
from onereward_jax.data.metadata import by
from onereward_jax.inference.edit_record import file_digest
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.distributed import broadcast_from_writer, gather_on_writer
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.pictures import read_picture, stored_size
from onereward_jax.stages.benchmark.benchmark_edits import (
    NamedRow,
    host_batch_size,
    picture_of,
)
from onereward_jax.stages.benchmark.host_shares import host_shares
from onereward_jax.stages.benchmark.judge_kind import FIRST
from onereward_jax.stages.benchmark.measured import Measured, MeasuredFile
from onereward_jax.stages.benchmark.metric_kinds import MetricKind, Sample, Values
from onereward_jax.stages.benchmark_inputs import EDITORS, ComparedEditor

NOT_FINITE = "the value is not finite"
NO_PICTURE = "the folder of this editor has no picture of the row"


@dataclasses.dataclass(frozen=True)
class Pictured:
    """A picture to measure.

    Attributes:
      editor: its editor's name.
      row: its row.
      path: its file.
      first: the first editor's file; None for the first editor, or if it has none.
      digest: of the files and of the row.
    """

    editor: str
    row: NamedRow
    path: Path
    first: Path | None
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height to measure at."""
        return self.row.size


def all_pictures(
    context: StageContext, editors: Sequence[ComparedEditor], rows: Sequence[NamedRow]
) -> list[Pictured]:
    """The pictures that there are, by editor and row.

    Raises:
      ValueError: finished pictures cannot be read, or have other proportions than their rows.
    """
    found: list[Pictured] = []
    firsts: dict[str, tuple[Path, str]] = {}
    for editor in editors:
        paths = {row.output: picture_of(context, editor, row) for row in rows}
        there = [(row, path) for row in rows if (path := paths[row.output]) is not None]
        if editor.pictures is not None:
            _check_proportions(editor, there)
        digests = {row.output: file_digest(path) for row, path in there}
        for row, path in there:
            first, other = firsts.get(row.output, (None, ""))
            digest = f"{digests[row.output]} {row.digest} {other}"
            found.append(Pictured(editor.name, row, path, first, digest))
        if editor is editors[0]:
            firsts = {row.output: (path, digests[row.output]) for row, path in there}
    return found


def _check_proportions(editor: ComparedEditor, pictures: Sequence[tuple[NamedRow, Path]]) -> None:
    """Raises ValueError, listing finished pictures that cannot be of their rows."""
    errors = []
    for row, path in pictures:
        try:
            (width, height), (across, down) = row.size, stored_size(path, path.name)
        except (OSError, ValueError) as error:
            errors.append(str(error))
            continue
        # Editors round sides down to multiples of 16.
        if abs(across / width - down / height) > MULTIPLE / min(row.size):
            errors.append(
                f"{path.name} is {by((across, down))} pixels, its row {by((width, height))}"
            )
    if errors:
        told = f"{EDITORS}: {len(errors)} bad pictures in {editor.pictures}"
        raise ValueError(told + listed(errors))


def measure_pictures(
    context: StageContext,
    editors: Sequence[ComparedEditor],
    pictures: Sequence[Pictured],
    kinds: Sequence[MetricKind],
) -> Mapping[tuple[str, str, str, str], Measured]:
    """Everything that is measured, on process 0; {} on the others.

    Raises:
      ValueError: a finished picture cannot be read or has other proportions than its row.
      Stopped: after a signal; the same command resumes.
    """
    file = MeasuredFile(context.folder) if is_writer() else None
    first = editors[0].name
    for kind in kinds:
        if kind.absent:
            continue
        keys = [_key(kind, one) for one in pictures]
        wanted = [
            (one, key)
            for one, key in zip(pictures, keys)
            if not all(name in lacking(kind, one, first) for name in kind.metrics)
        ]

        def missing(kind: MetricKind = kind, wanted: list = wanted) -> str:
            return json.dumps([
                number
                for number, (one, key) in enumerate(wanted)
                if (known := file.known.get(_place(kind, one))) is None or known.key != key
            ])  # fmt: skip

        todo = [wanted[number] for number in json.loads(broadcast_from_writer(missing))]
        if todo:
            _measure(context, kind, todo, file)
    return file.known if file is not None else {}


def lacking(kind: MetricKind, one: Pictured, first: str) -> dict[str, str]:
    """Metric -> why it cannot be measured of a picture."""
    if kind.absent:
        return dict.fromkeys(kind.metrics, kind.absent)
    if kind.compares and one.editor == first:
        return dict.fromkeys(kind.metrics, FIRST)
    return kind.lacking(one.row.row)


def _measure(
    context: StageContext,
    kind: MetricKind,
    todo: Sequence[tuple[Pictured, str]],
    file: MeasuredFile | None,
) -> None:
    measure = kind.load()
    with (
        progress_bar(
            f"benchmark: {kind.name.replace('_', ' ')}",
            len(todo),
            unit="picture",
            program=f"benchmark, {kind.name} {kind.version}" if kind.compiles else None,
        ) as bar,
        stop_points("benchmark") as stop,
    ):
        for share in host_shares(todo, lambda one: one[0].size, host_batch_size(context)):
            samples = [_sample(one) for one, _ in share.batch]
            found = [
                dataclasses.asdict(Measured(*_place(kind, one), key, _finite(values)))
                for (one, key), values in zip(share.own, measure(samples))
            ]
            for text in gather_on_writer(json.dumps(found)):
                file.add(Measured(**record) for record in json.loads(text))
            bar.update(len(share.chunk))
            stop.if_asked(f"at {bar.n} of {len(todo)} pictures")


def _finite(values: Values) -> Values:
    """The values, with a reason instead of those that are NaN or infinite."""
    return {
        name: value if isinstance(value, str) or math.isfinite(value) else NOT_FINITE
        for name, value in values.items()
    }


def _sample(one: Pictured) -> Sample:
    pixels = one.row.row.read()
    first = None if one.first is None else picture_pixels(one.first, one.size)
    return Sample(one.row.row, pixels, picture_pixels(one.path, one.size), first)


def picture_pixels(path: Path, size: tuple[int, int]) -> UInt8[ndarray, "h w 3"]:
    """An editor's picture in the size of its row. Raises ValueError if it cannot be read."""
    return resized(read_picture(path), size)


def _place(kind: MetricKind, one: Pictured) -> tuple[str, str, str, str]:
    return kind.name, one.editor, one.row.benchmark, one.row.row.name


def _key(kind: MetricKind, one: Pictured) -> str:
    text = json.dumps([kind.version, one.digest if kind.compares else one.digest.split()[:2]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
