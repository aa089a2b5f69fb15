"""The oracle of the mini world: scores a result in every dimension of its task.

It replaces people where the ground truth of a scene is known: it labels preference candidates and
scores editors in evaluation. It is never part of the training loss.
"""

from __future__ import annotations

import dataclasses
import types

import numpy as np
from jaxtyping import Float, UInt8

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle import (
    aesthetics,
    colours,
    consistency,
    removal_score,
    structure,
)
from onereward_jax.mini.oracle.identity import SpriteTemplates
from onereward_jax.mini.oracle.reading import WordReader
from onereward_jax.mini.oracle.triplet import SceneTruth
from onereward_jax.mini.oracle.written_words import WordJudge
from onereward_jax.mini.world.sprites import named_pictures
from onereward_jax.tasks import DIMENSIONS, Dimension

VERSION = "3"
"""Of the scores. 2: the structure of extensions is judged by what can be seen. 3: consistency still
falls where seam and tone are far off."""


@dataclasses.dataclass(frozen=True, eq=False)
class SceneOracle:
    """Scores in [0, 1], higher is better, without noise; the truth scores about 1.

    `sprites` are the named objects that could have been drawn, `words` reads written words.
    """

    sprites: SpriteTemplates
    words: WordJudge

    @classmethod
    def mini_world(cls, ocr: bool = True) -> SceneOracle:
        """The oracle of the mini world's sprites and words. Without `ocr` words are judged by
        stroke correlation alone, at a fraction of the time."""
        return cls(
            SpriteTemplates.build(named_pictures()), WordJudge(WordReader() if ocr else None)
        )

    def scores(
        self, result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"], triplet: SceneTruth
    ) -> dict[Dimension, float]:
        """Score of `result` (uint8 [0, 255] or float [-1, 1]) per dimension of the triplet's task.

        Raises:
          ValueError: the result's size is not the triplet's, or it holds NaN or infinity.
        """
        picture = _checked(result, triplet)
        return {
            dimension: self._judge(dimension, triplet).score(picture, triplet)
            for dimension in DIMENSIONS[triplet.task]
        }

    def parts(
        self, result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"], triplet: SceneTruth
    ) -> dict[Dimension, dict[str, float]]:
        """The named parts of each score, in [0, 1]. Arguments and errors as in `scores`."""
        picture = _checked(result, triplet)
        return {
            dimension: self._judge(dimension, triplet).parts(picture, triplet)
            for dimension in DIMENSIONS[triplet.task]
        }

    def _judge(
        self, dimension: Dimension, triplet: SceneTruth
    ) -> types.ModuleType | SpriteTemplates | WordJudge:
        """The object with `parts` and `score` for this dimension and kind of triplet."""
        if dimension is Dimension.TEXT_ALIGNMENT:
            return {"object": self.sprites, "word": self.words, "scene": colours}[triplet.kind]
        return _JUDGES[dimension]


_JUDGES = {
    Dimension.STRUCTURE: structure,
    Dimension.CONSISTENCY: consistency,
    Dimension.AESTHETICS: aesthetics,
    Dimension.REMOVAL_QUALITY: removal_score,
}


def _checked(result: np.ndarray, triplet: SceneTruth) -> Picture:
    if result.shape[:2] != triplet.mask.shape:
        raise ValueError(f"the result is {result.shape[:2]}, the triplet {triplet.mask.shape}")
    if not np.isfinite(result).all():
        raise ValueError("the result has NaN or infinity")
    return Picture.read(result)
