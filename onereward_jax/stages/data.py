"""Stage `data`: triplets of every task, as a TFDS data set in ArrayRecord files."""

from __future__ import annotations

from pathlib import Path

from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.mini_source import MiniWorldSource
from onereward_jax.data.triplets import MissingFeatures, Triplets, TripletSource, write_triplets
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import TASKS, Task


def run(context: StageContext) -> Results:
    """Writes the data set, unless it is ready; returns how many triplets it has.

    Raises:
      ValueError: unknown `config.data.source`; bad rows of a folder, all at once.
    """
    if context.config.data.source != "tfds":
        write_triplets(context.folder, _source(context))
    return {
        split: len(open_triplets(context, split)) for split in ("train", "test")
    }


def open_triplets(context: StageContext, split: str) -> Triplets:
    """A split of the run's data set, wherever it is; raises as `Triplets`."""
    data = context.config.data
    if data.source == "tfds":
        return Triplets(Path(data.path), split)
    try:
        return Triplets(context.output("data"), split)
    except MissingFeatures as error:
        raise ValueError(
            f"{error}. It was written by an earlier version: run the stage data again"
        ) from None


def _source(context: StageContext) -> TripletSource:
    data = context.config.data
    if data.source == "folder":
        return FolderSource(Path(data.path), data.image_size, tuple(data.aspect_ratios))
    if data.source != "mini":
        raise ValueError(f"config.data.source is {data.source!r}: choose mini, folder or tfds")
    if tuple(data.aspect_ratios) != (1.0,):
        raise ValueError("config.data.aspect_ratios is for folders: mini scenes are squares")
    counts = {
        split: {Task(task): count for task, count in data[split].items() if count}
        for split in ("train", "test")
    }
    ordered = {
        split: {task: found[task] for task in TASKS if task in found}
        for split, found in counts.items()
    }
    return MiniWorldSource(ordered, data.image_size, context.config.seed)
