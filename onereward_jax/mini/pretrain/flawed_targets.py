"""Flaws of the targets that the base editor learns from, as in data nobody has sorted.

They leave room for reinforcement to choose: the base paints good and flawed areas alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFilter

from onereward_jax.mini.world import Scene
from onereward_jax.tasks import Task

Picture = Float32[np.ndarray, "h w 3"]
"""RGB in [0, 255]."""

STRENGTH = (0.3, 1.0)
"""Range of a flaw's strength."""

FOG = 170.0
"""Grey level towards which a washed-out area fades."""


def see_through(
    rng: np.random.Generator, scene: Scene, faint: float, opacity: tuple[float, float]
) -> Picture:
    """The scene's target, with the object or word of some fills half transparent.

    In a share `faint` of the fill scenes, its opacity is drawn from the range `opacity`. Removals
    and extensions are unchanged.
    """
    target, background = np.float32(scene.target), np.float32(scene.background)
    strength = rng.uniform(*opacity) if rng.random() < faint else 1.0
    return background + np.float32(strength) * (target - background)


def flawed(rng: np.random.Generator, picture: Picture, scene: Scene, share: float) -> Picture:
    """`picture`, in a share of the scenes with one flaw inside the mask: see `FLAWS`.

    Removals are unchanged: the base sees so few of them that it is mediocre anyway.
    """
    if scene.task is Task.REMOVAL or rng.random() >= share:
        return picture
    flaw, strength = FLAWS[rng.integers(len(FLAWS))], rng.uniform(*STRENGTH)
    damaged = np.clip(flaw(rng, picture, strength), 0, 255).astype(np.float32)
    return np.where(scene.mask[..., None] > 0, damaged, picture)


def _cast(rng: np.random.Generator, picture: Picture, strength: float) -> Picture:
    """A shift of colour and brightness by up to 70 of 255."""
    direction = rng.normal(size=3)
    return picture + np.float32(70.0 * strength * direction / np.linalg.norm(direction))


def _blurred(rng: np.random.Generator, picture: Picture, strength: float) -> Picture:
    """Blurred by up to a twentieth of the side."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return np.asarray(
        image.filter(ImageFilter.GaussianBlur(strength * image.width / 20)), np.float32
    )


def _washed_out(rng: np.random.Generator, picture: Picture, strength: float) -> Picture:
    """Faded towards light grey, by up to three quarters."""
    return picture + np.float32(0.75 * strength) * (FOG - picture)


FLAWS: tuple[Callable[[np.random.Generator, Picture, float], Picture], ...] = (
    _cast,
    _blurred,
    _washed_out,
)
