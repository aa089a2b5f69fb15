"""Triplets of the mini world: composed scenes, in the numbers per task given by the config.

`config.data.source = "onereward_jax.mini.scene_source"`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np
from ml_collections import FrozenConfigDict

from onereward_jax.chain.allowed_values import whole
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import SPLITS, Example, RowError, Split
from onereward_jax.mini.world.make_scene import make_scene
from onereward_jax.tasks import PAPER_TASKS, TASKS, Task

FIELDS = {f"mini.{split}.{task.value}": whole(0) for split in SPLITS for task in PAPER_TASKS}

_SPLIT_NUMBER = {"train": 0, "test": 1}


def require_scenes(config: FrozenConfigDict, field: str) -> None:
    """Check for plugins that need the ground truth of a scene.

    Raises:
      ValueError: the triplets are not from this source; names the config field of the plugin.
    """
    if config.data.source != __name__:
        raise ValueError(
            f"config.{field} works with the mini world only: config.data.source is "
            f"{config.data.source!r}, not {__name__!r} (configs/mini.py:folder has neither)"
        )


def make_source(config: FrozenConfigDict) -> MiniWorldSource:
    """The scenes of `config.mini.train` and `config.mini.test`.

    Raises:
      ValueError: aspect ratios are given, or a split has no scene.
    """
    if tuple(config.data.aspect_ratios) != (1.0,):
        raise ValueError("config.data.aspect_ratios is for folders: mini scenes are squares")
    counts = {
        split: {
            task: config.mini[split][task.value]
            for task in PAPER_TASKS
            if config.mini[split][task.value]
        }
        for split in SPLITS
    }
    for split, found in counts.items():
        if not found:
            raise ValueError(f"config.mini.{split}: the number of triplets is 0 for every task")
    return MiniWorldSource(counts, config.data.image_size, config.seed)


def describe(config: FrozenConfigDict) -> str:
    """Description of the data for a model card."""
    return "composed scenes of the mini world: photographs with sprites and words put into them"


@dataclasses.dataclass(frozen=True)
class MiniWorldSource:
    """Scenes drawn from (seed, split, task, number): adding scenes never changes earlier ones.

    Attributes:
      counts: scenes per split and task.
      image_size: height and width in pixels.
      seed: seed of the scenes.
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
        """The scene of a row; rows are ordered by split, then by task."""
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
