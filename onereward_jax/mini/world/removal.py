"""Object removal: remove one or two objects from a photograph and keep the others."""

from __future__ import annotations

import numpy as np

from onereward_jax.data.boxes import Box
from onereward_jax.data.example import Split
from onereward_jax.mini.world.masks import Mask
from onereward_jax.mini.world.objects import PlacedObject, random_object
from onereward_jax.mini.world.photos import crop_photo
from onereward_jax.mini.world.scene_record import Scene, mask_pixels
from onereward_jax.mini.world.sprites import anonymous_sprites
from onereward_jax.tasks import FIXED_PROMPTS, Task

OBJECT_SIZES = (20 / 64, 34 / 64)
MOST_MASKED = 0.55
"""Largest share of the image under the mask; a second object that would exceed it is left out."""


def removal_scene(rng: np.random.Generator, split: Split, size: int) -> Scene:
    """A photograph with objects under the mask and sometimes one outside, which must stay."""
    background, photo = crop_photo(rng, split, size)
    sprites = anonymous_sprites(split)
    unwanted = [random_object(rng, sprites, size, OBJECT_SIZES)]
    mask = unwanted[0].drawn_mask(rng, size)
    if rng.random() < 0.2:
        second = random_object(rng, sprites, size, OBJECT_SIZES)
        both = mask | second.drawn_mask(rng, size)
        if both.mean() <= MOST_MASKED:
            unwanted, mask = [*unwanted, second], both
    if rng.random() < 0.35:
        kept = _outside(rng, split, mask)
        background = kept.paste(background) if kept is not None else background
    image = background
    for placed in unwanted:
        image = placed.paste(image)
    return Scene(
        image=image,
        mask=mask_pixels(mask),
        target=background,
        background=background,
        prompt=FIXED_PROMPTS[Task.REMOVAL],
        task=Task.REMOVAL,
        kind="object",
        label=" and ".join(placed.sprite.label for placed in unwanted),
        box=_around([placed.box for placed in unwanted]),
        photo=photo,
    )


def _outside(rng: np.random.Generator, split: Split, mask: Mask) -> PlacedObject | None:
    """An object that does not touch the mask; None if a few tries find no room."""
    size = mask.shape[0]
    for _ in range(6):
        kept = random_object(rng, anonymous_sprites(split), size, (16 / 64, 26 / 64))
        y0, x0, y1, x1 = kept.box
        if not mask[y0:y1, x0:x1].any():
            return kept
    return None


def _around(boxes: list[Box]) -> Box:
    y0s, x0s, y1s, x1s = zip(*boxes)
    return min(y0s), min(x0s), max(y1s), max(x1s)
