"""Scenes of every task of the mini world, drawn from a numpy generator."""

from __future__ import annotations

from typing import Literal

import numpy as np

from onereward_jax.data.example import Split
from onereward_jax.mini.world.extend import extend_scene
from onereward_jax.mini.world.fill import object_scene, word_scene
from onereward_jax.mini.world.removal import removal_scene
from onereward_jax.mini.world.scene_record import Scene
from onereward_jax.tasks import Task

WORD_SHARE = 0.3
"""Share of fill scenes with words, if `kind` is not given."""


def make_scene(
    rng: np.random.Generator,
    task: Task,
    split: Split,
    size: int = 64,
    *,
    kind: Literal["object", "word"] | None = None,
) -> Scene:
    """A random scene; the same generator state gives the same scene.

    Args:
      task: the editing task.
      split: train and test share no photograph, and in removal and extend no sprite.
      size: height and width in pixels.
      kind: kind of a fill scene; None: a word with probability `WORD_SHARE`. Ignored for the other
        tasks.
    """
    if task is Task.REMOVAL:
        return removal_scene(rng, split, size)
    if task is not Task.FILL:
        return extend_scene(rng, split, size, task)
    if kind is None:
        kind = "word" if rng.random() < WORD_SHARE else "object"
    return word_scene(rng, split, size) if kind == "word" else object_scene(rng, split, size)
