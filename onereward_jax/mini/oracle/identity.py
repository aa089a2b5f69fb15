"""Recognises the named sprite in a masked area, by normalised correlation and colour."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from onereward_jax.common.cielab import rgb_to_lab
from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import weighted
from onereward_jax.mini.oracle.triplet import SceneTruth
from onereward_jax.mini.oracle.windows import GRID, sample_windows, square

WEIGHTS = {"recognition": 0.5, "shape": 0.25, "colour": 0.25}

TEMPERATURE = 0.08
"""Temperature of the softmax over names; evidence is in [0, 1]."""

COLOUR_SCALE = 30.0
"""ΔE at which colour evidence is 0.37."""

SURROUND_WEIGHT = 0.25
"""Weight of a pixel outside the sprite relative to one inside; checks where the outline ends."""


@dataclasses.dataclass(frozen=True, eq=False)
class SpriteTemplates:
    """All named sprites on a common square grid: templates for the object in an image."""

    names: tuple[str, ...]
    lab: Float32[np.ndarray, "n grid grid 3"]
    alpha: Float32[np.ndarray, "n grid grid"]

    @classmethod
    def build(cls, sprites: Mapping[str, UInt8[np.ndarray, "_ _ 4"]]) -> SpriteTemplates:
        """Templates from RGBA images cropped to the sprite; centred on a square, aspect kept."""
        grids = [_on_grid(rgba) for rgba in sprites.values()]
        lab, alpha = zip(*grids)
        return cls(tuple(sprites), np.stack(lab), np.stack(alpha))

    def parts(self, result: Picture, triplet: SceneTruth) -> dict[str, float]:
        """Text alignment of a fill with an object, parts in [0, 1].

        recognition: probability of the right name among all names. shape: correlation with the
        right sprite, maximum over small shifts and sizes. colour: closeness of the mean colour.

        Raises:
          ValueError: the triplet's label is not the name of a sprite.
        """
        if triplet.label not in self.names:
            raise ValueError(f"label {triplet.label!r} is not one of the {len(self.names)} sprites")
        windows = sample_windows(result.lab, square(triplet.box), GRID, GRID)
        templates = _over_background(self, triplet)
        label = self.names.index(triplet.label)
        evidence = _evidence(windows, templates[label], self.alpha[label]).sum(0)
        window = windows[evidence.argmax()]
        correlation, colour = _evidence(window, templates, self.alpha)
        evidence = (correlation + colour) / 2
        odds = np.exp((evidence - evidence.max()) / TEMPERATURE)
        return {
            "recognition": float(odds[label] / odds.sum()),
            "shape": float(correlation[label]),
            "colour": float(colour[label]),
        }

    def score(self, result: Picture, triplet: SceneTruth) -> float:
        """Text alignment in [0, 1], about 1 for the right sprite drawn sharply."""
        return weighted(self.parts(result, triplet), WEIGHTS)


@functools.lru_cache(maxsize=64)
def _over_background(
    sprites: SpriteTemplates, triplet: SceneTruth
) -> Float32[np.ndarray, "n grid grid 3"]:
    """All sprites on the triplet's background; cached for other candidates of the triplet."""
    windows = sample_windows(triplet.background.lab, square(triplet.box), GRID, GRID)
    cover = sprites.alpha[..., None]
    return sprites.lab * cover + windows[len(windows) // 2] * (1 - cover)


def _evidence(
    windows: Float32[np.ndarray, "*windows grid grid 3"],
    templates: Float32[np.ndarray, "*templates grid grid 3"],
    alpha: Float32[np.ndarray, "*templates grid grid"],
) -> Float32[np.ndarray, "2 *pairs"]:
    """(correlation clipped at 0, colour closeness) of windows with templates, both in [0, 1].

    Either all windows with one template or one window with all templates. No matrix products: these
    are so small that BLAS threads cost more time than they save.
    """
    weights = SURROUND_WEIGHT + (1 - SURROUND_WEIGHT) * alpha
    weights = (weights / weights.sum((-2, -1), keepdims=True))[..., None]
    window, template = (
        values - (values * weights).sum((-3, -2), keepdims=True) for values in (windows, templates)
    )
    weighted_template = template * weights
    covariance = (window * weighted_template).sum((-3, -2, -1))
    window_energy = (window * window * weights).sum((-3, -2, -1))
    template_energy = (template * weighted_template).sum((-3, -2, -1))
    # Add one L* of spread, so that a flat window correlates with nothing.
    correlation = covariance / np.sqrt((window_energy + 1.0) * (template_energy + 1.0))

    share = (alpha / alpha.sum((-2, -1), keepdims=True))[..., None]
    seen, meant = ((values * share).sum((-3, -2)) for values in (windows, templates))
    distance = np.linalg.norm(seen - meant, axis=-1)
    return np.stack([np.maximum(correlation, 0.0), np.exp(-distance / COLOUR_SCALE)])


def _on_grid(
    rgba: UInt8[np.ndarray, "h w 4"],
) -> tuple[Float32[np.ndarray, "grid grid 3"], Float32[np.ndarray, "grid grid"]]:
    height, width = rgba.shape[:2]
    side = max(height, width)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(Image.fromarray(rgba), ((side - width) // 2, (side - height) // 2))
    small = np.asarray(canvas.resize((GRID, GRID), Image.BOX), np.float32) / 255.0
    return rgb_to_lab(small[..., :3]).astype(np.float32), small[..., 3]
