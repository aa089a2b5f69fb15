"""A scene: an editing triplet with its ground truth."""

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
    """A triplet (image, mask, prompt) and its ground truth.

    `image` and `target` are equal outside the mask.

    Attributes:
      image: the image before the edit.
      mask: 255 where it is edited, 0 elsewhere.
      target: the perfect edit.
      background: the image without the object or word; for an extension, the target itself.
      prompt: the user's prompt.
      task: the editing task.
      kind: "object", "word" or "scene": what the mask is about.
      label: the object's name or the word; "" for a scene.
      box: (y0, x0, y1, x1) of object, word or extended area, ends excluded.
      photo: name of the background photograph.
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
    """Converts a boolean mask to the stored form: 0 and 255."""
    return mask.astype(np.uint8) * np.uint8(255)
