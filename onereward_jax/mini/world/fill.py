"""Image fill: put a named object into a photograph, or a word onto a sign."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from onereward_jax.data.boxes import Box
from onereward_jax.data.example import Split
from onereward_jax.mini.world.masks import box_mask, grow
from onereward_jax.mini.world.objects import random_object
from onereward_jax.mini.world.photos import crop_photo
from onereward_jax.mini.world.prompts import object_prompts, word_prompts
from onereward_jax.mini.world.scene_record import Picture, Scene, mask_pixels
from onereward_jax.mini.world.sprites import NAMED
from onereward_jax.mini.world.words import FACES, WORDS, word_picture
from onereward_jax.tasks import Task

OBJECT_SIZES = (24 / 64, 40 / 64)

GRID = 8 / 64
"""Sizes and positions of drawn objects and words are multiples of this share of the image's side,
one latent of the autoencoder. So a small editor has few appearances to learn per object."""

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

WORD_HEIGHT, WORD_WIDTH = 24 / 64, 48 / 64
"""Height and width of every word, as a share of the image's side: letters as large as possible."""

RIM = (4 / 64, 6 / 64)
"""Range of the width of a sign's rim around its word, as a share of the image's side."""


def object_scene(rng: np.random.Generator, split: Split, size: int) -> Scene:
    """A photograph, a mask, and the name of the object to draw there."""
    background, photo = crop_photo(rng, split, size)
    asked = random_object(rng, NAMED, size, OBJECT_SIZES, grid=round(GRID * size))
    mask = asked.drawn_mask(rng, size)
    image = background
    if rng.random() < 0.5:
        # Any named sprite except the one in the prompt.
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
    """A sign in a photograph, empty or with another word; the prompt asks for a word on it.

    The mask leaves a rim of the sign free, which shows the colours of sign and ink.
    """
    photograph, photo = crop_photo(rng, split, size)
    first, second = rng.permutation(len(WORDS))[:2].tolist()
    word, other = WORDS[first], WORDS[second]
    sign = _draw_sign(rng, photograph)
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


def _draw_sign(rng: np.random.Generator, photograph: Picture) -> _Sign:
    """An empty sign in the photograph, with room for a word."""
    size = photograph.shape[0]
    face = FACES[rng.integers(len(FACES))]
    grid = round(GRID * size)
    height, width = round(WORD_HEIGHT * size), round(WORD_WIDTH * size)
    least, most = (round(share * size) for share in RIM)
    top, left = (
        grid * int(rng.integers(1, (size - edge - most) // grid + 1)) for edge in (height, width)
    )
    rim = rng.integers(least, most + 1, 2).tolist()
    plate_height, plate_width = height + 2 * rim[0], width + 2 * rim[1]
    y, x = top - rim[0], left - rim[1]
    colour = np.array(PLATE_COLOURS[rng.integers(len(PLATE_COLOURS))]) + rng.integers(-15, 16, 3)
    colour = np.clip(colour, 0, 255).astype(np.uint8)
    ink = np.array(DARK_INK if colour @ (0.3, 0.6, 0.1) > 140 else BRIGHT_INK, np.uint8)
    line = max(1, size // 64)
    empty = photograph.copy()
    # The edge of the sign has the colour of the ink, so that the rim shows it.
    empty[y : y + plate_height, x : x + plate_width] = ink
    empty[y + line : y + plate_height - line, x + line : x + plate_width - line] = colour
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
