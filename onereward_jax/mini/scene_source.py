"""Triplets of the mini world: composed scenes, as many of each task as the config asks for.

`config.data.source = "onereward_jax.mini.scene_source"`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np
from ml_collections import FrozenConfigDict

from onereward_jax.chain.config_rules import per_task, whole
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import SPLITS, Example, RowError, Split
from onereward_jax.mini.world.make_scene import make_scene
from onereward_jax.tasks import TASKS, Task

FIELDS = per_task("mini.train", whole(0)) | per_task("mini.test", whole(0))

_SPLIT_NUMBER = {"train": 0, "test": 1}


def require_scenes(config: FrozenConfigDict, field: str) -> None:
    """For plug-ins that need the truth of a scene.

    Raises:
      ValueError: the triplets are not those of this source, naming the field of the plug-in.
    """
    if config.data.source != __name__:
        raise ValueError(
            f"config.{field} knows the mini world only: config.data.source is "
            f"{config.data.source!r}, not {__name__!r} (configs/mini.py:folder has neither)"
        )


def make_source(config: FrozenConfigDict) -> MiniWorldSource:
    """The scenes that `config.mini.train` and `config.mini.test` ask for.

    Raises:
      ValueError: aspect ratios are asked for, or no scene of a split.
    """
    if tuple(config.data.aspect_ratios) != (1.0,):
        raise ValueError("config.data.aspect_ratios is for folders: mini scenes are squares")
    counts = {
        split: {
            task: config.mini[split][task.value] for task in TASKS if config.mini[split][task.value]
        }
        for split in SPLITS
    }
    for split, found in counts.items():
        if not found:
            raise ValueError(f"config.mini.{split}: no triplet of any task is asked for")
    return MiniWorldSource(counts, config.data.image_size, config.seed)


def describe(config: FrozenConfigDict) -> str:
    """For a model card."""
    return "composed scenes of the mini world: photographs with sprites and words put into them"


@dataclasses.dataclass(frozen=True)
class MiniWorldSource:
    """Scenes drawn from (seed, split, task, number): more scenes never change earlier ones.

    Attributes:
      counts: scenes per split and task.
      image_size: height and width in pixels.
      seed: of everything that is drawn.
    """

    counts: Mapping[Split, Mapping[Task, int]]
    image_size: int = 64
    seed: int = 0

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Scenes are squares."""
        return ((self.image_size, self.image_size),)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The split of each scene."""
        return tuple(split for split, _, _ in self._scenes)

    def example(self, row: int) -> Example:
        """A scene, task by task and split by split."""
        split, task, number = self._scenes[row]
        key = (self.seed, _SPLIT_NUMBER[split], TASKS.index(task), number)
        scene = make_scene(np.random.default_rng(key), task, split, self.image_size)
        fields = {field.name: getattr(scene, field.name) for field in dataclasses.fields(scene)}
        return Example(has_target=True, **fields)

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Does nothing: no scene is bad."""

    def examples(self, split: Split) -> Iterator[Example]:
        """All examples of a split, task by task."""
        return (self.example(row) for row, one in enumerate(self.splits) if one == split)

    @functools.cached_property
    def _scenes(self) -> list[tuple[Split, Task, int]]:
        return [
            (split, task, number)
            for split, counts in self.counts.items()
            for task, count in counts.items()
            for number in range(count)
        ]
