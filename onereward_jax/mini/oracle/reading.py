"""How much of a scene's word OCR reads in a result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.word_reading import Box, WordReader, likeness
from onereward_jax.mini.oracle.triplet import SceneTruth

__all__ = ["Reader", "WordReader", "letters_read", "likeness"]

Reader = Callable[[UInt8[np.ndarray, "h w 3"], Box], str]
"""(picture [h, w, 3] uint8, box) -> the letters read."""


def letters_read(
    result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"],
    triplet: SceneTruth,
    reader: Reader,
) -> float | None:
    """Share of the letters of the prompt's word that OCR reads in `result`, in [0, 1].

    `result` is uint8 in [0, 255] or float in [-1, 1]. None if the triplet has no word.
    """
    if triplet.kind != "word":
        return None
    pixels = np.round(Picture.read(result).rgb * 255).astype(np.uint8)
    return likeness(reader(pixels, triplet.box), triplet.label)
