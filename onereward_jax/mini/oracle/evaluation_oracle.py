"""The oracle for the stage `evaluate`: `config.evaluate.oracle = "onereward_jax.mini.oracle"`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from ml_collections import FrozenConfigDict

from onereward_jax.chain.allowed_values import number
from onereward_jax.mini.oracle.reading import WordReader, letters_read
from onereward_jax.mini.oracle.scene_oracle import SceneOracle
from onereward_jax.mini.oracle.triplet import SceneTruth
from onereward_jax.mini.scene_source import require_scenes
from onereward_jax.tasks import Dimension

FIELDS = {"mini.same_margin": number(0.0), "mini.margin": number(0.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationOracle:
    """See `evaluation.oracle_interface.Oracle`."""

    oracle: SceneOracle
    reader: WordReader
    same_margin: float
    pair_margin: float

    def scores(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> dict[Dimension, float]:
        """Score per dimension of the example's task, in [0, 1]."""
        return self.oracle.scores(picture, SceneTruth.from_example(example))

    def letters_read(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> float | None:
        """Share of the word's letters that OCR reads, in [0, 1]; None if there is no word."""
        return letters_read(picture, SceneTruth.from_example(example), self.reader)


def check(config: FrozenConfigDict) -> None:
    """Raises ValueError if the triplets are not from `mini.scene_source`."""
    require_scenes(config, "evaluate.oracle")


def make_oracle(config: FrozenConfigDict) -> EvaluationOracle:
    """The oracle of `config.mini`."""
    margins = config.mini.same_margin, config.mini.margin
    return EvaluationOracle(SceneOracle.mini_world(), WordReader(), *margins)
