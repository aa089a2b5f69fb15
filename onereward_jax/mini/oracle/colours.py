"""Text alignment of an extension: does the new area have the colour that the prompt names?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from onereward_jax.common.cielab import rgb_to_lab
from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import closeness, weighted
from onereward_jax.mini.oracle.triplet import SceneTruth
from onereward_jax.mini.world.colour_words import NAMED_COLOURS
from onereward_jax.mini.world.prompts import prompt_colour

WEIGHTS = {"name": 0.5, "nearness": 0.5}

COLOUR_SCALE = 20.0
"""ΔE at which a part of the score is 0.37."""

_NAMES = tuple(NAMED_COLOURS)
_VALUES = np.array([*NAMED_COLOURS.values()])


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of text alignment of a scene, each in [0, 1], from the mean colour of the mask.

    name: no other named colour ("dark blue") is nearer than the one in the prompt.
    nearness: distance to the colour in the prompt, minus the distance of the truth's mean colour.

    Raises:
      ValueError: the prompt contains no colour of the mini world.
    """
    asked = prompt_colour(triplet.prompt)
    if asked is None:
        raise ValueError(f"the prompt {triplet.prompt!r} of a scene names no colour")
    index = _NAMES.index(asked)
    found, expected = (_distances(picture, triplet) for picture in (result, triplet.target))
    misnamed = (found[index] - found.min()) - (expected[index] - expected.min())
    return {
        "name": closeness(max(0.0, float(misnamed)), COLOUR_SCALE),
        "nearness": closeness(max(0.0, float(found[index] - expected[index])), COLOUR_SCALE),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Text alignment in [0, 1]; 1 for the truth."""
    return weighted(parts(result, triplet), WEIGHTS)


def _distances(picture: Picture, triplet: SceneTruth) -> Float[np.ndarray, " names"]:
    """ΔE of the mask's mean colour to every colour that a prompt can name."""
    mean = picture.rgb[triplet.mask].mean(0, dtype=np.float64)
    return np.linalg.norm(_VALUES - rgb_to_lab(mean), axis=-1)
