"""Edits of many rows, a batch at a time: only the pictures of a batch are in memory.

A row whose picture turns out to be damaged does not stop the others.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import ImageOps

from onereward_jax.common.listing import first_of
from onereward_jax.data.metadata import Place, bad_rows_message
from onereward_jax.inference.edit_record import (
    RECORD,
    Finished,
    Settings,
    file_digest,
    open_record,
    output_names,
    read_record,
    unfinished,
)
from onereward_jax.inference.edit_requests import EditRow
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.photograph_edit import EditPlan, PhotographEdit, edit_batch, prepare
from onereward_jax.inference.seeds import check_seeds
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.pictures import write_picture


@dataclasses.dataclass(frozen=True)
class RowToEdit:
    """One row: all but its pixels.

    Attributes:
      place: in its file.
      output: path below the folder of the results.
      size: width and height of the photograph.
      settings: what the result depends on.
      files: paths of its pictures, as far as they are files.
      open: decodes the row's pictures; raises FileNotFoundError, ValueError.
    """

    place: Place
    output: str
    size: tuple[int, int]
    settings: Settings
    files: tuple[Path, ...]
    open: Callable[[], PhotographEdit]


def rows_to_edit(
    rows: Sequence[EditRow], settings: Settings, seed: int, *, invert: bool
) -> list[RowToEdit]:
    """The rows with names for their results, and what those depend on.

    Args:
      rows: the rows.
      settings: what all results depend on.
      seed: of the first edit of each image; + 1 for each further one.
      invert: edit where masks are black; not for rows that extend by `pad`.

    Raises:
      ValueError: a seed does not fit into 64 bits.
    """
    found = []
    for row, (output, earlier) in zip(rows, output_names([row.name for row in rows])):
        check_seeds((seed + earlier,))
        files = row.files
        own = {
            "prompt": row.prompt,
            "task": row.task.value,
            "pad": row.pad,
            "pictures": [file_digest(file) for file in files],
            "seed": seed + earlier,
        }
        opening = functools.partial(_opened, row, seed + earlier, invert and row.pad is None)
        files = tuple(file for file in files if isinstance(file, Path))
        found.append(RowToEdit(row.place, output, row.size, {**settings, **own}, files, opening))
    return found


def edit_folder(
    rows: Sequence[RowToEdit],
    folder: Path,
    plan: EditPlan,
    load: Callable[[], Editor],
    *,
    source: str,
    errors: Mapping[Place, Exception],
    batch_size: int,
    steps: int,
    program: str,
) -> None:
    """Edits what is missing in a folder of results, and keeps the record beside them.

    Args:
      rows: the rows that can be edited.
      folder: of the results; created if missing.
      plan: how to edit.
      load: loads the editor, if anything is missing.
      source: what names the rows, in messages.
      errors: the rows that cannot be edited; named before the first edit.
      batch_size: rows per batch.
      steps: calls of the model per edit, for the progress bar.
      program: name of the compiled program, see `progress_bar`.

    Raises:
      ValueError: no row can be edited, a result would replace an input or a file of another
        origin, or, after all others are edited, some rows could not be.
    """
    total = len(rows) + len(errors)
    if errors:
        message = _named(source, errors)
        if not rows:
            raise ValueError(message)
        print(f"{message}\n  the other rows are edited", file=sys.stderr, flush=True)
    _check_outputs(rows, folder)
    with open_record(folder) as record:
        wanted = {row.output: row.settings for row in rows}
        missing, changed = unfinished(folder, wanted, read_record(folder))
        _tell(folder, len(rows), missing, changed)
        failed: dict[Place, Exception] = {}
        if missing:
            editor = load()
            with progress_bar("edit", len(missing) * steps, program=program) as bar:

                def add_rounds(count: int) -> None:
                    bar.total += count * steps

                failed = edit_rows(
                    editor, rows, missing, folder, plan, batch_size=batch_size, record=record,
                    on_step=bar.update, on_rounds=add_rounds,
                )  # fmt: skip
    made = len(missing) - len(failed)
    announce(f"written: {folder} ({made} files)")
    if failed or errors:
        named = {**errors, **failed}
        raise ValueError(f"{len(named)} of {total} rows were not edited: {_named(source, named)}")


def edit_rows(
    editor: Editor,
    rows: Sequence[RowToEdit],
    missing: Sequence[str],
    folder: Path,
    plan: EditPlan,
    *,
    batch_size: int,
    record: Callable[[Finished], None],
    on_step: Callable[[int], Any],
    on_rounds: Callable[[int], Any],
) -> dict[Place, Exception]:
    """Edits the rows whose outputs are missing, and writes each when it is done.

    The batches do not depend on what is missing: a result is the same bytes in a resumed run.

    Args:
      editor: the editor.
      rows: all rows.
      missing: outputs to make.
      folder: of the results.
      plan: how to edit.
      batch_size: rows per batch, of one size.
      record: called with each finished picture.
      on_step: called after each step with the number of pictures in it.
      on_rounds: called before a batch with the number of windows beyond one per row.

    Returns:
      The errors of rows that could not be edited.
    """
    wanted, errors = set(missing), {}
    for part in batches([row.size for row in rows], batch_size):
        members = [rows[index] for index in part]
        ready = {}
        # Missing ones first: without them the others need no editing.
        for row in sorted(members, key=lambda row: row.output not in wanted):
            if row.output not in wanted and not ready:
                break
            try:
                ready[row.output] = prepare(row.open(), plan, editor)
            except (OSError, ValueError) as error:
                if row.output in wanted:
                    errors[row.place] = error
        members = [row for row in members if row.output in ready]
        if not members:
            continue
        on_rounds(sum(ready[row.output].rounds - 1 for row in members))
        pictures = edit_batch(editor, [ready[row.output] for row in members], plan, on_step)
        for row, picture in zip(members, pictures, strict=True):
            if row.output in wanted:
                path = folder / row.output
                write_picture(path, picture, ready[row.output].edit.photograph.profile)
                record(Finished(row.output, file_digest(path), row.settings))
    return errors


def batches(sizes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[tuple[int, ...]]:
    """Indices of the images of each batch: of one size, at most `batch_size`."""
    by_size = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for _, same in itertools.groupby(by_size, key=lambda index: sizes[index]):
        same = list(same)
        for start in range(0, len(same), batch_size):
            yield tuple(same[start : start + batch_size])


def _named(source: str, errors: Mapping[Place, Exception]) -> str:
    """The bad rows in a sentence, or with a line for each of several."""
    if len(errors) > 1:
        return bad_rows_message(source, errors)
    ((place, error),) = errors.items()
    return f"{source}, {place}: {error}"


def _opened(row: EditRow, seed: int, invert: bool) -> PhotographEdit:
    request = row.open()
    mask = ImageOps.invert(request.mask) if invert else request.mask
    return PhotographEdit(request.photograph, mask, request.prompt, seed, str(row.place))


def _check_outputs(rows: Sequence[RowToEdit], folder: Path) -> None:
    """Nothing that this command has not made is replaced. Raises ValueError."""
    there = [row for row in rows if (folder / row.output).exists()]
    inputs = {file.resolve() for row in rows for file in row.files} if there else set()
    for row in there:
        if (folder / row.output).resolve() in inputs:
            raise ValueError(
                f"--out: {folder / row.output} is an input, which would be lost; choose another "
                "folder"
            )
    if there and not (folder / RECORD).exists():
        names = ", ".join(first_of([row.output for row in there]))
        raise ValueError(
            f"--out: {folder} has no {RECORD}, but files with the names of results: {names}; "
            "choose another folder, or move them away"
        )


def _tell(
    folder: Path, count: int, missing: Sequence[str], changed: Mapping[str, Sequence[str]]
) -> None:
    """Says what is kept and what is made anew."""
    if len(missing) < count:
        announce(f"{folder}: {count - len(missing)} of {count} pictures are there and are kept")
    if changed:
        names = dict.fromkeys(name for one in changed.values() for name in one)
        announce(
            f"{folder}: {len(changed)} pictures were made with other settings and are made anew: "
            f"{', '.join(first_of(list(names)))} changed ({', '.join(first_of(list(changed), 5))})"
        )
