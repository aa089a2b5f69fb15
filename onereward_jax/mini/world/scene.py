"""A scene: an editing triplet with its truth."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from onereward_jax.data.boxes import Box
from onereward_jax.mini.world.masks import Mask
from onereward_jax.tasks import Task

Picture = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A triplet (image, mask, prompt) and what is known about it.

    `image` and `target` are equal outside the mask.

    Attributes:
      image: the picture before the edit.
      mask: 255 where it is to be edited, 0 elsewhere.
      target: what a perfect edit looks like.
      background: what is behind the object or word; the target itself for an extension.
      prompt: what the user writes.
      task: the editing task.
      kind: "object", "word" or "scene": what the mask is about.
      label: the object's name or the word; "" for a scene.
      box: (y0, x0, y1, x1) of object, word or extended area, ends excluded.
      photo: name of the photograph behind everything.
    """

    image: Picture
    mask: UInt8[np.ndarray, "h w"]
    target: Picture
    background: Picture
    prompt: str
    task: Task
    kind: str
    label: str
    box: Box
    photo: str


def mask_pixels(mask: Mask) -> UInt8[np.ndarray, "size size"]:
    """A boolean mask as it is stored: 0 and 255."""
    return mask.astype(np.uint8) * np.uint8(255)
