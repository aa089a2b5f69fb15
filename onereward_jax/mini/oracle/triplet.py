"""A triplet of the mini world with its ground truth, and the regions where results are measured."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.tasks import Task

BAND = 3.0
"""Width in (64×64) pixels of the band on each side of the mask boundary."""

SURROUNDINGS = 10.0
"""How far, in (64×64) pixels, "around the mask" reaches."""

SILHOUETTE_DELTA_E = 6.0
"""A pixel belongs to the object or word when target and background differ by more than this."""

MIN_FREE_SHARE = 0.1
"""Smallest share of the mask on which the filling is measured."""


@dataclasses.dataclass(frozen=True, eq=False)
class SceneTruth:
    """(I_src, M, P) and its ground truth. Build one with `from_example`.

    `target` is what a perfect edit looks like, `background` what is behind the object or word,
    `box` = (y0, x0, y1, x1) of object, word or extended area; `kind` is object, word or scene;
    `label` the sprite's name or the word.
    """

    image: Picture
    mask: Bool[np.ndarray, "h w"]
    target: Picture
    background: Picture
    task: Task
    kind: str
    label: str
    prompt: str
    box: tuple[int, int, int, int]

    @classmethod
    def from_example(cls, example: Mapping[str, Any]) -> SceneTruth:
        """From a data set example: uint8 arrays image, mask [h,w] or [h,w,1] 0/255, target,
        background; task, kind, label, prompt as str or bytes; box of four integers.

        Raises:
          ValueError: pictures of different sizes, an empty or full mask, an unknown kind or task.
        """
        pictures = {name: Picture.read(example[name]) for name in ("image", "target", "background")}
        mask = np.asarray(example["mask"])
        mask = (mask[..., 0] if mask.ndim == 3 else mask) > 0
        kind = _text(example["kind"])
        for name, picture in pictures.items():
            if picture.rgb.shape[:2] != mask.shape:
                raise ValueError(f"{name} is {picture.rgb.shape[:2]}, the mask {mask.shape}")
        if mask.all() or not mask.any():
            raise ValueError("the mask must cover a part of the picture, found all or nothing")
        if kind not in ("object", "word", "scene"):
            raise ValueError(f"kind must be object, word or scene, found {kind!r}")
        return cls(
            mask=mask,
            task=Task(_text(example["task"])),
            kind=kind,
            label=_text(example["label"]),
            prompt=_text(example["prompt"]),
            box=tuple(int(edge) for edge in example["box"]),
            **pictures,
        )

    @functools.cached_property
    def depth(self) -> Float32[np.ndarray, "h w"]:
        """Signed distance to the mask boundary in (64×64) pixels, positive inside."""
        inside = ndimage.distance_transform_edt(self.mask)
        outside = ndimage.distance_transform_edt(~self.mask)
        return ((inside - outside) / self.target.unit).astype(np.float32)

    @functools.cached_property
    def band(self) -> Bool[np.ndarray, "h w"]:
        """Pixels on both sides of the mask boundary."""
        return np.abs(self.depth) <= BAND

    @functools.cached_property
    def surroundings(self) -> Bool[np.ndarray, "h w"]:
        """Unmasked pixels near the mask."""
        return (self.depth < 0) & (self.depth >= -SURROUNDINGS)

    @functools.cached_property
    def silhouette(self) -> Bool[np.ndarray, "h w"]:
        """Where the true object or word is; empty for scenes."""
        difference = np.linalg.norm(self.target.lab - self.background.lab, axis=-1)
        return (difference > SILHOUETTE_DELTA_E) & self.mask

    @functools.cached_property
    def drawn_box(self) -> tuple[int, int, int, int]:
        """Tight box (y0, x0, y1, x1) of the silhouette; `box` when the silhouette is empty."""
        if not self.silhouette.any():
            return self.box
        rows, columns = np.nonzero(self.silhouette)
        return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1

    @functools.cached_property
    def filling(self) -> Bool[np.ndarray, "h w"]:
        """Masked pixels that show background whatever is drawn.

        For a scene or a removal: all. For an object or word: those outside `box`; if too few, those
        outside the true silhouette; if still too few, all.
        """
        if self.kind == "scene" or self.task is Task.REMOVAL:
            return self.mask
        y0, x0, y1, x1 = self.box
        boxed = np.zeros_like(self.mask)
        boxed[max(0, y0) : y1, max(0, x0) : x1] = True
        near = ndimage.binary_dilation(self.silhouette, iterations=max(1, round(self.target.unit)))
        for drawn in (boxed, near):
            free = self.mask & ~drawn
            if free.sum() >= MIN_FREE_SHARE * self.mask.sum():
                return free
        return self.mask

    @functools.cached_property
    def tangent(self) -> Float32[np.ndarray, "h w 2"]:
        """Unit vector (y, x) along the mask boundary at each pixel of the plane; 0 far away."""
        gradient_y, gradient_x = np.gradient(self.target.smooth(self.mask.astype(np.float32), 1.5))
        tangent = np.stack([-gradient_x, gradient_y], -1)
        length = np.linalg.norm(tangent, axis=-1, keepdims=True)
        return np.where(length > 1e-4, tangent / np.maximum(length, 1e-4), 0.0).astype(np.float32)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
