"""One triplet of a data set: images, mask, prompt, task, and the ground truth if known.

Sources (mini world, a user's folder) yield it, `tfds_record` stores it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from onereward_jax.tasks import Task

Split = Literal["train", "test"]

SPLITS: tuple[Split, ...] = ("train", "test")

NAME_LENGTH = 16
"""Hexadecimal digits of a name: the probability of a collision among a million is 3e-8."""


class RowError(ValueError):
    """A row of a source, or a file it names, cannot be used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A triplet (image, mask, prompt) and its ground truth.

    Attributes:
      id: its name, a digest of its content: task, prompt, pixels of image, mask and target (if
        any). Equal triplets have equal names.
      image: the source image, uint8.
      mask: 255 where to edit, 0 elsewhere.
      has_target: whether the ground truth is known. If not, `target` and `background` are black
        placeholders.
      target: the ground truth of the edit.
      background: the image without the object or word; equal to `target` if unknown.
      prompt: the user's prompt.
      task: the editing task.
      kind: subject of the mask: "object", "word" or "scene".
      label: the object's name or the word; "" if there is none.
      box: (y0, x0, y1, x1) of object, word or extended area, half-open.
      photo: name of the photograph that the image is made from.
      files: name of an image field -> its JPEG file content, for images stored as JPEG.
    """

    id: str = dataclasses.field(init=False)
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    has_target: bool
    target: UInt8[np.ndarray, "h w 3"]
    background: UInt8[np.ndarray, "h w 3"]
    prompt: str
    task: Task
    kind: str
    label: str
    box: tuple[int, int, int, int]
    photo: str
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self._name())

    def _name(self) -> str:
        digest = hashlib.sha256()
        pictures = (self.image, self.mask, *([self.target] if self.has_target else []))
        parts = [self.task.value.encode(), self.prompt.encode()]
        for picture in pictures:
            parts += [repr(picture.shape).encode(), picture.tobytes()]
        for part in parts:
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.hexdigest()[:NAME_LENGTH]
