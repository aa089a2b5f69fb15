"""Structure relative to the truth, the hidden part of an extension included.

Nobody can see in the pictures of an extension what was cut off: the oracle judges extensions by
`visible_structure` instead. For objects and words the truth follows from the source and the prompt.
The score for extensions is kept to compare figures with earlier ones (benchmarks/evidence.py).
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import (
    closeness,
    gradient_agreement,
    log_ratio,
    mean_over,
    weighted,
)
from onereward_jax.mini.oracle.triplet import SceneTruth

WEIGHTS = {"layout": 0.4, "continuity": 0.3, "form": 0.3}

GRADIENT_FLOOR = 0.5
"""L* per pixel; weaker gradients count as flat."""

FOREGROUND_DELTA_E = 15.0
"""A masked pixel differs visibly from the background when it differs by more than this."""

OUTLINE_QUANTILE = 0.85
"""Quantile of gradient strength in the mask above which pixels count as outline."""


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of structure, each in [0, 1].

    layout: gradients (orientation and strength) of the unmasked area agree with the source's.
    continuity: edges that cross the mask boundary continue as in the truth. Only the change *along*
    the boundary is compared, so a step of colour across it does not count here.
    form: for an object or word, one clearly outlined shape, whatever it shows; for a scene, as much
    structure as the truth has.
    """
    return {
        "layout": _layout(result, triplet),
        "continuity": _continuity(result, triplet),
        "form": _scene_form(result, triplet) if triplet.kind == "scene" else _form(result, triplet),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Structure in [0, 1]; 1 for the truth."""
    return weighted(parts(result, triplet), WEIGHTS)


def _layout(result: Picture, triplet: SceneTruth) -> float:
    untouched = triplet.depth < -1.5  # where the truth is the source
    return gradient_agreement(result.gradient, triplet.target.gradient, untouched, GRADIENT_FLOOR)


def _continuity(result: Picture, triplet: SceneTruth) -> float:
    crossing = (triplet.band & triplet.filling) | (triplet.band & ~triplet.mask)
    along = [
        (picture.gradient * triplet.tangent).sum(-1, keepdims=True)
        for picture in (result, triplet.target)
    ]
    return gradient_agreement(*along, crossing, GRADIENT_FLOOR)


def _scene_form(result: Picture, triplet: SceneTruth) -> float:
    strengths = [
        mean_over(np.linalg.norm(picture.gradient, axis=-1), triplet.mask)
        for picture in (result, triplet.target)
    ]
    return closeness(abs(log_ratio(*strengths, GRADIENT_FLOOR)), 1.0)


def _form(result: Picture, triplet: SceneTruth) -> float:
    """Outline times wholeness, each relative to the truth and capped at 1."""
    outline, wholeness = _shape(result, triplet)
    true_outline, true_wholeness = _true_shape(triplet)
    return min(1.0, outline / max(true_outline, 1e-3)) * min(
        1.0, wholeness / max(true_wholeness, 1e-3)
    )


def _shape(picture: Picture, triplet: SceneTruth) -> tuple[float, float]:
    """(outline, wholeness): how strong the strongest gradients in the mask are, in L* per pixel,
    and how much of the foreground is in its largest connected piece, in [0, 1]."""
    strength = np.linalg.norm(picture.gradient[triplet.mask], axis=-1)
    difference = np.linalg.norm(picture.soft_lab - triplet.background.soft_lab, axis=-1)
    pieces, count = ndimage.label((difference > FOREGROUND_DELTA_E) & triplet.mask)
    sizes = np.bincount(pieces.ravel())[1:]
    wholeness = float(sizes.max() / sizes.sum()) if count else 0.0
    return float(np.quantile(strength, OUTLINE_QUANTILE)), wholeness


@functools.lru_cache(maxsize=64)
def _true_shape(triplet: SceneTruth) -> tuple[float, float]:
    """`_shape` of the truth; cached for other candidates of the same triplet."""
    return _shape(triplet.target, triplet)
