"""One triplet of a data set: pictures, mask, prompt, task, and what is known about the truth.

This is what the sources (mini world, the user's folder) give and what `tfds_record` stores.
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
"""Hexadecimal digits of a name: of a million triplets, two share one with probability 3e-8."""


class RowError(ValueError):
    """A row of a source, or a file it names, cannot be used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A triplet (image, mask, prompt) and its truth.

    Attributes:
      id: its name, made of what it is: task, prompt, pixels of image and mask, and of the target
        where there is one. Equal triplets have equal names, wherever they stand.
      image: the picture before the edit.
      mask: 255 where it is to be edited, 0 elsewhere.
      has_target: whether it is known what a perfect edit looks like. Where it is not, `target` and
        `background` are black and mean nothing: do not read them.
      target: what a perfect edit looks like.
      background: what is behind object or word; equal to `target` where only that is known.
      prompt: what the user writes.
      task: the editing task.
      kind: "object", "word" or "scene": what the mask is about.
      label: the object's name or the word; "" where there is none.
      box: (y0, x0, y1, x1) of object, word or extended area, ends excluded.
      photo: the photograph that the picture is made of.
      files: of pictures that are stored as JPEG, by their names here: the bytes of the file.
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
