"""Stage `data`: triplets of every task, as a TFDS data set in ArrayRecord files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
from ml_collections import FrozenConfigDict

from onereward_jax.chain.base_models import made_by, made_folder
from onereward_jax.chain.plugins import check_plugin, maker
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.data.aspect_buckets import bucket_sizes
from onereward_jax.data.example import SPLITS
from onereward_jax.data.folder_source import FolderSource, small_rows
from onereward_jax.data.index import write_index
from onereward_jax.data.metadata import Row, read_rows, refuse_rows
from onereward_jax.data.row_files import RowFiles, row_files
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.source_interface import TripletSource
from onereward_jax.data.splits import check_splits
from onereward_jax.data.triplets import MissingFeatures, Triplets, check_data_set
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.storage import local_path
from onereward_jax.tasks import TASKS


def check(context: StageContext) -> None:
    """Checks the section `data` and the rows of a folder, without decoding images.

    Raises:
      FileNotFoundError: there is no folder or no metadata.
      ValueError: a field of `config.data` is invalid, or rows or prompts are (all are listed).
    """
    data = context.config.data
    maker_of_it = made_by(context.config, "data.path")
    if maker_of_it and maker_of_it not in context.config.stages:
        raise ValueError(
            f"config.data.path is {data.path!r}, but config.stages has no {maker_of_it!r}: add it "
            "there, or name its folder in the work folder where it ran"
        )
    if data.source == "tfds":
        check_data_set(data_folder(context))
        _prompt_checks().check_prompts_of_data(context)
        return
    try:
        sizes = bucket_sizes(data.image_size, tuple(data.aspect_ratios))
    except ValueError as error:
        raise ValueError(f"config.data.{error}") from None
    if data.source == "folder":
        if maker_of_it:
            return  # it makes the rows, and checks them
        title, rows = data_files(context).title, folder_rows(context, files=True)
        if data.small_pictures == "refuse":
            refuse_rows(title, small_rows(rows, sizes))
        check_splits(title, rows)
        _prompt_checks().check_prompts_of_data(context)
    else:
        check_plugin(context.config, "data.source")
        _own_source(context.config)


def run(context: StageContext) -> Results:
    """Writes the data set, unless the source is a TFDS data set; returns the number of triplets.

    Raises:
      ValueError: as `check`; or images of a folder, or prompts of a source of one's own, are bad
        (all are listed).
    """
    data = context.config.data
    if data.source == "folder":
        source = FolderSource(
            data_path(context),
            data.image_size,
            tuple(data.aspect_ratios),
            data.small_pictures,
            data.paths,
            tuple(data.mask_indices),
        )
        for note in source.notes(_write(context, source)):
            announce(f"data: {note}")
    elif data.source != "tfds":
        _write(context, _own_source(context.config))
    _prompt_checks().check_prompts_of_data(context, written=True)
    triplets = {split: open_triplets(context, split) for split in SPLITS}
    for split, found in triplets.items():
        if found.scanned:
            write_index(context.folder, split, found.index)
    for line in describe(triplets):
        announce(f"data: {line}")
    return {split: len(found) for split, found in triplets.items()}


def _prompt_checks() -> ModuleType:
    """Imported late: it reads the rows by functions of this module."""
    return importlib.import_module("onereward_jax.stages.prompt_checks")


def describe(triplets: Mapping[str, Triplets]) -> list[str]:
    """Messages: the number of triplets per task and split, and tasks that are missing."""
    counts = {
        split: np.bincount(one.tasks, minlength=len(TASKS)) for split, one in triplets.items()
    }
    parts = [
        f"{split} {of_task.sum()} ("
        + ", ".join(f"{task.value} {count}" for task, count in zip(TASKS, of_task) if count)
        + ")"
        for split, of_task in counts.items()
    ]
    lines = ["triplets: " + "; ".join(parts)]
    for task, train, test in zip(TASKS, counts["train"], counts["test"]):
        if train and not test:
            lines.append(
                f"no test triplet of {task.value}: judge accuracy and Good-Same-Bad cannot be "
                "measured for it"
            )
        if test and not train:
            lines.append(f"no training triplet of {task.value}: it is not trained")
    return lines


def open_triplets(context: StageContext, split: str) -> Triplets:
    """Opens a split of the run's data set; raises as `Triplets`."""
    if context.config.data.source == "tfds":
        return Triplets(data_folder(context), split, index=context.output("data"))
    try:
        return Triplets(context.output("data"), split)
    except MissingFeatures as error:
        raise ValueError(
            f"{error}. It was written by an older version: rerun the stage data"
        ) from None


def data_path(context: StageContext) -> str | Path:
    """`config.data.path`, for `row_files`; "stage:curate" is the output of that stage.

    Raises:
      ValueError: the field is empty.
    """
    data = context.config.data
    if not data.path:
        needed = {"folder": "with metadata.jsonl", "tfds": "of the data set"}[data.source]
        raise ValueError(
            f"config.data.path is empty: config.data.source = {data.source!r} needs the folder "
            + needed
        )
    if made_by(context.config, "data.path"):
        return made_folder(context.config, "data.path", context.workdir)
    return data.path


def data_files(context: StageContext) -> RowFiles:
    """The files with the rows, for `config.data.source` = "folder".

    Raises:
      FileNotFoundError: there are none.
      ValueError: as `data_path` and `row_files`.
    """
    path = data_path(context)
    try:
        return row_files(path)
    except FileNotFoundError as error:
        reason = str(error)
        if reason.endswith(f"there is no folder or file {path}"):
            reason = "there is no such folder or file"
        raise FileNotFoundError(f"config.data.path is {str(path)!r}: {reason}") from None


def data_folder(context: StageContext) -> Path:
    """The folder of a TFDS data set.

    Raises:
      ValueError: as `data_path`.
      FileNotFoundError: there is no such folder.
    """
    data = context.config.data
    folder = local_path(data_path(context), again=False)
    if not folder.is_dir():
        raise FileNotFoundError(f"config.data.path is {data.path!r}: there is no such folder")
    return folder


def folder_rows(context: StageContext, *, files: bool = False) -> tuple[Row, ...]:
    """The rows of the folder for `config.data.source` = "folder"; needs no output of the stage.

    Args:
      context: of any stage.
      files: as in `read_rows`.

    Raises:
      FileNotFoundError, ValueError: as `data_files` and `read_rows`.
    """
    data_files(context)  # names the field in its errors
    anywhere = context.config.data.paths == "anywhere"
    return read_rows(data_path(context), files=files, anywhere=anywhere)


def _write(context: StageContext, source: TripletSource) -> Mapping[int, int]:
    """Writes the source's triplets; returns the skipped duplicates, see `Written`."""
    total = len(source.splits)
    with (
        progress_bar("data", total, unit="triplet") as bar,
        stop_points("data", alone=True) as stop,
    ):

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)
            stop.if_asked(f"at {done} of {total} triplets")

        return write_triplets(context.folder, source, progress=progress).repeated


def _own_source(config: FrozenConfigDict) -> TripletSource:
    """The source made by the plug-in named in `config.data.source`."""
    source = maker(config, "data.source")(config)
    if not isinstance(source, TripletSource):
        raise ValueError(
            f"config.data.source is {config.data.source!r}: its make_source(config) gives "
            f"{type(source).__name__}, not a onereward_jax.data.source_interface.TripletSource"
        )
    return source
