"""Triplets of the mini world: composed scenes, as many of each task as the config asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from onereward_jax.data.buckets import Size
from onereward_jax.data.example import Example, Split
from onereward_jax.data.mini_world.scenes import make_scene
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

    def examples(self, split: Split) -> Iterator[Example]:
        """All examples of a split, task by task."""
        for task, count in self.counts[split].items():
            for number in range(count):
                key = (self.seed, _SPLIT_NUMBER[split], TASKS.index(task), number)
                scene = make_scene(np.random.default_rng(key), task, split, self.image_size)
                fields = {f.name: getattr(scene, f.name) for f in dataclasses.fields(scene)}
                yield Example(has_target=True, **fields)
