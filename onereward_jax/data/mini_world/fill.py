"""Image fill: put a named object into a photograph, or a word onto a sign."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from onereward_jax.data.mini_world.masks import Box, box_mask, grow
from onereward_jax.data.mini_world.objects import random_object
from onereward_jax.data.mini_world.photos import Split, crop_photo
from onereward_jax.data.mini_world.prompts import object_prompts, word_prompts
from onereward_jax.data.mini_world.scene import Picture, Scene, mask_pixels
from onereward_jax.data.mini_world.sprites import NAMED
from onereward_jax.data.mini_world.words import FACES, WORDS, natural_aspect, word_picture
from onereward_jax.tasks import Task

OBJECT_SIZES = (24 / 64, 40 / 64)

PLATE_COLOURS = (
    (250, 250, 250),
    (255, 225, 70),
    (255, 180, 200),
    (170, 230, 170),
    (160, 215, 250),
    (30, 70, 160),
    (190, 30, 40),
    (20, 110, 60),
    (100, 40, 130),
    (45, 45, 50),
)
DARK_INK, BRIGHT_INK = (15, 15, 20), (255, 255, 250)

WORD_HEIGHTS = (18 / 64, 24 / 64)
LONGEST_WORD = 50 / 64
NARROWEST = 0.6
"""Letters may be set this much narrower than the face draws them, before they get lower."""


def object_scene(rng: np.random.Generator, split: Split, size: int) -> Scene:
    """A photograph, a mask, and the name of what belongs there."""
    background, photo = crop_photo(rng, split, size)
    asked = random_object(rng, NAMED, size, OBJECT_SIZES)
    mask = asked.drawn_mask(rng, size)
    image = background
    if rng.random() < 0.5:
        # Any named sprite but the one asked for.
        step = 1 + rng.integers(len(NAMED) - 1)
        other = asked.replaced_by(NAMED[(NAMED.index(asked.sprite) + step) % len(NAMED)])
        image = other.paste(background)
        mask |= other.outline_mask(size, max(1, size // 32))
    wordings = object_prompts(asked.sprite.phrase)
    return Scene(
        image=image,
        mask=mask_pixels(mask),
        target=asked.paste(background),
        background=background,
        prompt=wordings[rng.integers(len(wordings))],
        task=Task.FILL,
        kind="object",
        label=asked.sprite.label,
        box=asked.box,
        photo=photo,
    )


def word_scene(rng: np.random.Generator, split: Split, size: int) -> Scene:
    """A sign before a photograph; its writing, or the lack of it, is to become the word asked for.

    The mask leaves a rim of the sign free, from which the colours of sign and ink follow.
    """
    photograph, photo = crop_photo(rng, split, size)
    first, second = rng.permutation(len(WORDS))[:2].tolist()
    word, other = WORDS[first], WORDS[second]
    sign = _draw_sign(rng, photograph, word)
    mask = box_mask(size, grow(rng, sign.word_box, max(1, size // 64), max(2, size // 32)))
    image = sign.empty
    if rng.random() < 0.5:
        image = _write(sign.empty, sign.ink, other, sign.face, sign.word_box)
    wordings = word_prompts(word)
    return Scene(
        image=image,
        mask=mask_pixels(mask),
        target=_write(sign.empty, sign.ink, word, sign.face, sign.word_box),
        background=sign.empty,
        prompt=wordings[rng.integers(len(wordings))],
        task=Task.FILL,
        kind="word",
        label=word,
        box=sign.word_box,
        photo=photo,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Sign:
    empty: Picture
    ink: UInt8[np.ndarray, "3"]
    face: str
    word_box: Box


def _draw_sign(rng: np.random.Generator, photograph: Picture, word: str) -> _Sign:
    """An empty sign in the photograph, with room for `word`."""
    size = photograph.shape[0]
    face = FACES[rng.integers(len(FACES))]
    height = int(rng.integers(round(WORD_HEIGHTS[0] * size), round(WORD_HEIGHTS[1] * size) + 1))
    aspect = natural_aspect(word, face)
    longest = round(LONGEST_WORD * size)
    width = min(round(height * aspect), longest)
    height = min(height, round(width / (aspect * NARROWEST)))
    rim = rng.integers(round(size * 4 / 64), round(size * 6 / 64) + 1, 2).tolist()
    plate_height, plate_width = height + 2 * rim[0], width + 2 * rim[1]
    y, x = (int(rng.integers(0, size - edge + 1)) for edge in (plate_height, plate_width))
    colour = np.array(PLATE_COLOURS[rng.integers(len(PLATE_COLOURS))]) + rng.integers(-15, 16, 3)
    colour = np.clip(colour, 0, 255).astype(np.uint8)
    ink = np.array(DARK_INK if colour @ (0.3, 0.6, 0.1) > 140 else BRIGHT_INK, np.uint8)
    line = max(1, size // 64)
    empty = photograph.copy()
    # The edge of the sign has the colour of the ink, so that the ink can be told from the rim.
    empty[y : y + plate_height, x : x + plate_width] = ink
    empty[y + line : y + plate_height - line, x + line : x + plate_width - line] = colour
    top, left = y + rim[0], x + rim[1]
    return _Sign(empty, ink, face, (top, left, top + height, left + width))


def _write(
    picture: Picture, ink: UInt8[np.ndarray, "3"], word: str, face: str, box: Box
) -> Picture:
    """A copy of `picture` with the word fitted into the box."""
    y0, x0, y1, x1 = box
    cover = word_picture(word, face, x1 - x0, y1 - y0)[..., None].astype(np.float32) / 255
    result = picture.copy()
    written = result[y0:y1, x0:x1]
    written[...] = np.rint(written + cover * (ink.astype(np.float32) - written))
    return result
