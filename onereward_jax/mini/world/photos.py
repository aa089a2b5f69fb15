"""Backgrounds of the mini world: photographs from pip packages, split into train and test.

The images are read from the packages `scikit-image` and `scikit-learn`, not from the repository. A
photograph belongs to one split only.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.data.example import Split

CLOSEST = 1.5
"""Smallest number of source pixels per pixel of a crop: a crop is never enlarged."""

GAIN = 0.25
"""Largest relative change of a colour channel in the augmentation of training crops."""

GAMMA = (0.4, 1.2)
"""Range of the gamma of training crops: most training photographs are dark."""

Tint = tuple[float, float, float]
_NO_TINT: Tint = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
      name: its name in the package.
      split: the split that it belongs to.
      credit: author and licence.
      weight: relative frequency within its split.
      tints: colours of its variants; grey textures have more than one.
    """

    name: str
    split: Split
    credit: str
    weight: int = 4
    tints: tuple[Tint, ...] = (_NO_TINT,)


PHOTOS: tuple[Photo, ...] = (
    Photo("astronaut", "train", "NASA, public domain"),
    Photo("coffee", "train", "Rachel Michetti, CC0"),
    Photo("chelsea", "train", "Stefan van der Walt, CC0"),
    Photo("rocket", "train", "SpaceX, public domain"),
    Photo("hubble_deep_field", "train", "NASA, public domain", weight=1),
    Photo("retina", "train", "Mikael Häggström, CC0", weight=1),
    Photo(
        "brick",
        "train",
        "CC0Textures, CC0",
        weight=2,
        tints=((1.2, 0.8, 0.62), (0.75, 0.9, 1.25), (1.2, 1.1, 0.75)),
    ),
    Photo(
        "grass",
        "train",
        "linolafett, CC0",
        weight=2,
        tints=((0.7, 1.1, 0.45), (1.2, 1.05, 0.5), (0.5, 0.95, 0.85)),
    ),
    Photo(
        "gravel",
        "train",
        "CC0Textures, CC0",
        weight=2,
        tints=((0.95, 0.95, 1.15), (1.2, 1.0, 0.75), (1.1, 0.8, 1.0)),
    ),
    Photo("china", "test", "danielbuechele, CC BY 2.0"),
    Photo("flower", "test", "vultilion, CC BY 2.0"),
)


def crop_photo(
    rng: np.random.Generator, split: Split, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], str]:
    """A random square crop of a random photograph of `split`, and the photograph's name.

    Half of the crops are mirrored. Training crops, which come from few photographs, also vary in
    colour: channels are swapped and scaled by up to `GAIN`, and brightness changes by `GAMMA`.
    Otherwise a model would learn that most of them are warm and dark.
    """
    photo = _drawn_by_weight(split)
    photo = photo[rng.integers(len(photo))]
    levels = _pyramid(photo.name, photo.tints[rng.integers(len(photo.tints))])
    width, height = levels[0].size
    closest = min(CLOSEST * size, min(width, height))
    side = closest * (min(width, height) / closest) ** rng.random()
    x, y = rng.random() * (width - side), rng.random() * (height - side)
    # The level where the crop has between one and two pixels per pixel of the result.
    level = min(int(np.log2(max(side / size, 1.0))), len(levels) - 1)
    scaled = levels[level]
    shrink_x, shrink_y = scaled.width / width, scaled.height / height
    box = (x * shrink_x, y * shrink_y, (x + side) * shrink_x, (y + side) * shrink_y)
    pixels = np.asarray(scaled.resize((size, size), Image.LANCZOS, box=box))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if split == "train":
        pixels = _vary_colours(rng, pixels)
    return np.ascontiguousarray(pixels), photo.name


def _vary_colours(
    rng: np.random.Generator, pixels: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    chance, *gains = rng.random(5)
    low, high = np.log(GAMMA)
    pixels = 255.0 * (pixels / 255.0) ** np.exp(rng.uniform(low, high))
    pixels = pixels[..., rng.permutation(3)]
    if chance < 0.5:
        return pixels.astype(np.uint8)
    brightness = 1 + GAIN * (2 * gains[3] - 1)
    scale = brightness * (1 + GAIN * (2 * np.array(gains[:3], np.float32) - 1))
    return np.minimum(pixels * scale.astype(np.float32), 255).astype(np.uint8)


@functools.cache
def _drawn_by_weight(split: Split) -> tuple[Photo, ...]:
    return tuple(p for p in PHOTOS if p.split == split for _ in range(p.weight))


@functools.cache
def _pyramid(name: str, tint: Tint) -> tuple[Image.Image, ...]:
    """The photograph at full size, half, a quarter, ...: makes crops cheap at every scale."""
    tinted = _load(name) * np.array(tint, np.float32)
    levels = [Image.fromarray(np.minimum(tinted, 255).astype(np.uint8))]
    while min(levels[-1].size) >= 128:
        levels.append(levels[-1].reduce(2))
    return tuple(levels)


@functools.cache
def _load(name: str) -> UInt8[np.ndarray, "h w 3"]:
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return load_sample_image(f"{name}.jpg")
    from skimage import data

    pixels = getattr(data, name)()
    return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
