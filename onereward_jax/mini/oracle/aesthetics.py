"""Aesthetics: the whole image is sharp, naturally coloured, free of noise and patterns.

The ground truth's own values are the reference: an image near them loses nothing.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float32

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import closeness, log_ratio, mean_over, weighted
from onereward_jax.mini.oracle.triplet import SceneTruth

WEIGHTS = {"sharpness": 0.35, "saturation": 0.25, "contrast": 0.1, "cleanness": 0.3}

DETAIL_FLOOR = 0.5
"""L* per pixel; weaker detail counts as flat."""

SHARPNESS_SCALE = 0.7
"""Lost detail (natural log) at which sharpness is 0.37: half of the detail."""

CHROMA_TOLERANCE = 3.0
CHROMA_SCALE = 12.0
"""Difference of mean chroma that costs nothing, and the excess at which the score is 0.37."""

CONTRAST_TOLERANCE = 0.1
CONTRAST_SCALE = 0.5
SPREAD_FLOOR = 2.0
"""The same for the natural log of the spread of L*; a spread below the floor (L*) counts as 0."""

FLAT_SHARE = 0.4
"""Share of the image that counts as flat: its flattest pixels."""

NOISE_SCALE = 1.5
"""Detail, in L* per pixel, at which cleanness is 0.37, in areas where the truth is flat."""


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of aesthetics, each in [0, 1].

    sharpness: fine detail relative to the truth; only a lack counts. saturation: difference of
    mean chroma from the truth, above a tolerance. contrast: the same for the spread of L*, above
    ±10 %. cleanness: no detail (noise, grid, ringing) where the truth is flat.
    """
    limits = _limits(triplet)
    found = _figures(result)
    gain = log_ratio(found.detail, limits.figures.detail, DETAIL_FLOOR)
    chroma = abs(found.chroma - limits.figures.chroma)
    spread = abs(log_ratio(found.spread, limits.figures.spread, SPREAD_FLOOR))
    noise = mean_over(np.maximum(result.detail - limits.usual_detail, 0.0), limits.flat)
    return {
        "sharpness": closeness(max(0.0, -gain), SHARPNESS_SCALE),
        "saturation": closeness(max(0.0, chroma - CHROMA_TOLERANCE), CHROMA_SCALE),
        "contrast": closeness(max(0.0, spread - CONTRAST_TOLERANCE), CONTRAST_SCALE),
        "cleanness": closeness(max(0.0, noise - limits.noise), NOISE_SCALE),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Aesthetics in [0, 1]; 1 for the truth."""
    return weighted(parts(result, triplet), WEIGHTS)


@dataclasses.dataclass(frozen=True)
class _Figures:
    detail: float
    chroma: float
    spread: float


@dataclasses.dataclass(frozen=True)
class _Limits:
    """Reference values of one triplet, from its truth."""

    figures: _Figures
    flat: Bool[np.ndarray, "h w"]
    """The flattest part of the truth, where noise and patterns show."""

    usual_detail: Float32[np.ndarray, "h w"]
    """The truth's detail around each pixel."""

    noise: float
    """Mean detail beyond `usual_detail` that the truth itself has where it is flat."""


def _figures(picture: Picture) -> _Figures:
    return _Figures(
        detail=float(picture.detail.mean()),
        chroma=float(picture.chroma.mean()),
        spread=float(picture.lab[..., 0].std()),
    )


@functools.lru_cache(maxsize=64)
def _limits(triplet: SceneTruth) -> _Limits:
    """The reference values; cached for other candidates of the same triplet."""
    truth = triplet.target
    broad_detail = truth.smooth(truth.detail, 2.0)
    flat = broad_detail <= np.quantile(broad_detail, FLAT_SHARE)
    usual_detail = truth.smooth(truth.detail, 1.0)
    noise = mean_over(np.maximum(truth.detail - usual_detail, 0.0), flat)
    return _Limits(_figures(truth), flat, usual_detail, noise)
