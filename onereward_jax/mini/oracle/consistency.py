"""Consistency: colour, texture and light of the edited area blend with the surroundings."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float32

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import closeness, log_ratio, mean_over, weighted
from onereward_jax.mini.oracle.triplet import SceneTruth

WEIGHTS = {"seam": 0.4, "tone": 0.2, "texture": 0.15, "drift": 0.25}

SEAM_SCALE = 20.0
TONE_SCALE = 25.0
DRIFT_SCALE = 15.0
"""ΔE at which this part of the score is 0.37."""

DRIFT_TILES = 8
"""Tiles along each side over which the colour of the unmasked area is averaged."""

TEXTURE_FLOOR = 1.0
"""L* per pixel: texture weaker than about this counts as flat."""


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of consistency, each in [0, 1], each relative to the truth at the same place.

    seam: step of colour across the mask boundary. tone: median colour of the filling relative to
    the surroundings. texture: strength of fine detail of the filling relative to the surroundings.
    drift: change of colour of the unmasked area.
    """
    found, expected = _blend(result, triplet), _truth_blend(triplet)
    step = found.boundary_step - expected.boundary_step
    texture = found.texture_contrast - expected.texture_contrast
    return {
        "seam": closeness(float(np.linalg.norm(step, axis=-1).mean()), SEAM_SCALE),
        "tone": closeness(float(np.linalg.norm(found.offset - expected.offset)), TONE_SCALE),
        "texture": closeness(abs(texture), 1.0),
        "drift": closeness(_drift(result, triplet), DRIFT_SCALE),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Consistency in [0, 1]; 1 for the truth."""
    return weighted(parts(result, triplet), WEIGHTS)


@dataclasses.dataclass(frozen=True)
class _Blend:
    """Differences between the filling of a mask and its surroundings."""

    boundary_step: Float32[np.ndarray, "n 3"]
    """L*a*b* just inside minus just outside, at each of n pixels along the mask boundary."""

    offset: Float32[np.ndarray, " 3"]
    """Median L*a*b* of the filling minus that of the surroundings."""

    texture_contrast: float
    """Natural log of the ratio of fine detail, filling to surroundings."""


def _blend(picture: Picture, triplet: SceneTruth) -> _Blend:
    filling, surroundings = triplet.filling, triplet.surroundings
    inside = _local_mean(picture, filling)
    outside = _local_mean(picture, ~triplet.mask)
    edge = np.abs(triplet.depth) <= 1.5
    return _Blend(
        boundary_step=(inside - outside)[edge],
        offset=_usual_colour(picture, filling) - _usual_colour(picture, surroundings),
        texture_contrast=log_ratio(
            mean_over(picture.detail, filling),
            mean_over(picture.detail, surroundings),
            TEXTURE_FLOOR,
        ),
    )


@functools.lru_cache(maxsize=64)
def _truth_blend(triplet: SceneTruth) -> _Blend:
    """The truth's values; cached for other candidates of the same triplet."""
    return _blend(triplet.target, triplet)


def _drift(result: Picture, triplet: SceneTruth) -> float:
    """Mean ΔE between result and source of local mean colours: unmasked pixels of an 8×8 tiling.

    Local means, because noise and displaced details are not colour drift.
    """
    untouched = ~triplet.mask
    # In the unmasked area the truth is the source.
    difference = np.where(untouched[..., None], result.lab - triplet.target.lab, 0.0)
    height, width = untouched.shape
    starts = [np.arange(DRIFT_TILES) * size // DRIFT_TILES for size in (height, width)]
    total, count = (
        np.add.reduceat(np.add.reduceat(values, starts[0], 0), starts[1], 1)
        for values in (difference, untouched.astype(np.float32))
    )
    return float(np.linalg.norm(total, axis=-1).sum() / count.sum())


def _usual_colour(picture: Picture, region: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, " 3"]:
    """Median per channel, which ignores the edge of a drawing that reaches into the region."""
    return np.median(picture.lab[region], axis=0)


def _local_mean(picture: Picture, region: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Mean L*a*b* of the pixels of `region` near each pixel, Gaussian σ = 1.5."""
    weight = region.astype(np.float32)[..., None]
    total = picture.smooth(np.concatenate([picture.lab * weight, weight], -1), 1.5)
    return total[..., :3] / (total[..., 3:] + 1e-3)
