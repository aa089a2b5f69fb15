"""Removal quality: the object is gone, the area is clean, nothing is invented in its place."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.ssim import ssim_map
from onereward_jax.mini.oracle.closeness import closeness, mean_over, weighted
from onereward_jax.mini.oracle.triplet import SceneTruth

WEIGHTS = {"likeness": 0.3, "colour": 0.3, "absence": 0.2, "plainness": 0.2}

COLOUR_SCALE = 15.0
"""ΔE at which the colour part is 0.37."""

EDGE_SCALE = 4.0
"""Invented gradient, in L* per pixel over the mask, at which plainness is 0.37."""


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of removal quality, each in [0, 1].

    likeness: SSIM to the true background inside the mask. colour: ΔE of blurred colours to it.
    absence: how little remains of the object's difference from the background.
    plainness: no strong edges (sprites have black outlines) beyond those of the background nearby.
    """
    truth = triplet.background
    likeness = mean_over(ssim_map(result.rgb, truth.rgb), triplet.mask)
    difference = result.soft_lab - truth.soft_lab
    colour = mean_over(np.linalg.norm(difference, axis=-1), triplet.mask)

    target_object = (triplet.image.soft_lab - truth.soft_lab)[triplet.mask]
    energy = float((target_object**2).sum())
    leftover = float((difference[triplet.mask] * target_object).sum()) / energy if energy else 0.0

    strength = np.linalg.norm(result.gradient, axis=-1)
    expected = np.linalg.norm(truth.gradient, axis=-1)
    # An edge up to two pixels away from a true edge does not count as invented.
    reach = 2 * max(1, round(result.unit)) + 1
    invented = np.maximum(strength - ndimage.maximum_filter(expected, reach), 0.0)
    return {
        "likeness": max(0.0, likeness),
        "colour": closeness(colour, COLOUR_SCALE),
        "absence": 1.0 - min(1.0, max(0.0, leftover)),
        "plainness": closeness(mean_over(invented, triplet.mask), EDGE_SCALE),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Removal quality in [0, 1]; 1 for the true background."""
    return weighted(parts(result, triplet), WEIGHTS)
