"""Triplets of the mini world: composed scenes, as many of each task as the config asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np

from onereward_jax.data.buckets import Size
from onereward_jax.data.example import Example, RowError, Split
from onereward_jax.mini.world.scenes import make_scene
from onereward_jax.tasks import TASKS, Task

_SPLIT_NUMBER = {"train": 0, "test": 1}


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
