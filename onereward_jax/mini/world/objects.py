"""Objects placed in an image: position, size, and the mask that a user would draw around them."""

from __future__ import annotations

import dataclasses

import numpy as np

from onereward_jax.data.boxes import Box
from onereward_jax.mini.world.masks import (
    Mask,
    box_mask,
    grow,
    place,
    stroke_mask,
)
from onereward_jax.mini.world.scene_record import Picture
from onereward_jax.mini.world.sprites import Sprite, silhouette, sprite_picture

RADIUS = (2, 5)
"""Range of the distance between an object and the box or outline around it, in (64×64) pixels."""


@dataclasses.dataclass(frozen=True)
class PlacedObject:
    """A sprite in a picture: its longer side is `size` pixels, its upper left corner at (y, x)."""

    sprite: Sprite
    size: int
    y: int
    x: int

    @property
    def box(self) -> Box:
        """(y0, x0, y1, x1) around the sprite; may reach beyond the picture."""
        height, width = sprite_picture(self.sprite.label, self.size).shape[:2]
        return self.y, self.x, self.y + height, self.x + width

    def paste(self, picture: Picture) -> Picture:
        """A copy of `picture` with the object; parts outside the image are cut off."""
        rgba = sprite_picture(self.sprite.label, self.size)
        y0, x0, y1, x1 = self.box
        height, width = picture.shape[:2]
        rgba = rgba[max(0, -y0) : max(0, height - y0), max(0, -x0) : max(0, width - x0)]
        result = picture.copy()
        covered = result[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        alpha = rgba[..., 3:].astype(np.float32) / 255
        covered[...] = np.rint(covered + alpha * (rgba[..., :3].astype(np.float32) - covered))
        return result

    def replaced_by(self, sprite: Sprite) -> PlacedObject:
        """Another object of the same size with the same centre."""
        y0, x0, y1, x1 = self.box
        height, width = sprite_picture(sprite.label, self.size).shape[:2]
        y, x = (y0 + y1 - height) // 2, (x0 + x1 - width) // 2
        return PlacedObject(sprite, self.size, y, x)

    def outline_mask(self, picture_size: int, radius: int) -> Mask:
        """Every pixel within `radius` of the object."""
        near = silhouette(self.sprite.label, self.size, radius)
        return place(picture_size, near, self.y - radius, self.x - radius)

    def drawn_mask(self, rng: np.random.Generator, picture_size: int) -> Mask:
        """A mask as users draw it: a box, the outline or brush strokes. Covers the whole object."""
        unit = picture_size / 64
        least, most = (max(1, round(radius * unit)) for radius in RADIUS)
        draw = rng.random()
        if draw < 0.5:
            return box_mask(picture_size, grow(rng, self.box, least, most))
        if draw < 0.8:
            return self.outline_mask(picture_size, int(rng.integers(least, most + 1)))
        stroked = stroke_mask(rng, picture_size, self.box)
        return stroked | self.outline_mask(picture_size, least)


def random_object(
    rng: np.random.Generator,
    sprites: tuple[Sprite, ...],
    picture_size: int,
    sizes: tuple[float, float],
    overhang: float = 0.0,
    grid: int = 1,
) -> PlacedObject:
    """A sprite drawn from `sprites` at a random place.

    Args:
      sizes: range of the longer side, as a share of the image's side.
      overhang: largest part outside the image, as a share of the object's own side.
      grid: sizes and positions are multiples of this many pixels.
    """
    sprite = sprites[rng.integers(len(sprites))]
    least, most = (round(share * picture_size) for share in sizes)
    size = grid * int(rng.integers(-(-least // grid), most // grid + 1))
    height, width = sprite_picture(sprite.label, size).shape[:2]
    over = round(overhang * size)

    def start(side: int) -> int:
        return grid * int(rng.integers(-(over // grid), (picture_size - side + over) // grid + 1))

    return PlacedObject(sprite, size, start(height), start(width))
