"""Image extend: paint the area outside the image, with or without a prompt."""

from __future__ import annotations

import numpy as np

from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.example import Split
from onereward_jax.mini.world.colour_words import describe_colour
from onereward_jax.mini.world.masks import border_mask
from onereward_jax.mini.world.objects import random_object
from onereward_jax.mini.world.photos import crop_photo
from onereward_jax.mini.world.prompts import colour_prompts
from onereward_jax.mini.world.scene_record import Scene, mask_pixels
from onereward_jax.mini.world.sprites import anonymous_sprites
from onereward_jax.tasks import FIXED_PROMPTS, Task

OBJECT_SIZES = (20 / 64, 34 / 64)
UNSEEN = 128
"""Grey level of the area to paint."""


def extend_scene(rng: np.random.Generator, split: Split, size: int, task: Task) -> Scene:
    """A photograph with zero to two objects; one to four of its borders are missing.

    A prompt names the mean colour of the missing part, the only description that is correct for
    any photograph. Objects may lie across the seam.
    """
    target, photo = crop_photo(rng, split, size)
    for _ in range(int(rng.integers(3))):
        target = random_object(
            rng, anonymous_sprites(split), size, OBJECT_SIZES, overhang=0.3
        ).paste(target)
    mask = border_mask(rng, size)
    prompt = FIXED_PROMPTS.get(task)
    if prompt is None:
        wordings = colour_prompts(describe_colour(target[mask].mean(0)))
        prompt = wordings[rng.integers(len(wordings))]
    return Scene(
        image=np.where(mask[..., None], np.uint8(UNSEEN), target),
        mask=mask_pixels(mask),
        target=target,
        background=target,
        prompt=prompt,
        task=task,
        kind="scene",
        label="",
        box=bounding_box(mask),
        photo=photo,
    )
