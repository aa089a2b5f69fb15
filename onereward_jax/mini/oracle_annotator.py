"""The mini world's annotator: answers from the oracle's scores, with a given error rate.

`config.annotate.by = "onereward_jax.mini.oracle_annotator"`.
"""

from __future__ import annotations

import dataclasses

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.annotator_interface import Asked, BestAndWorst
from onereward_jax.chain.allowed_values import SHARE, number
from onereward_jax.common.rng import generator
from onereward_jax.mini.oracle import VERSION, SceneOracle, SceneTruth, annotate
from onereward_jax.mini.scene_source import require_scenes

__all__ = ["FIELDS", "VERSION", "check", "describe", "make_annotator"]

FIELDS = {"mini.noise_rate": SHARE, "mini.margin": number(0.0)}


@dataclasses.dataclass(frozen=True)
class OracleAnnotator:
    """Answers from `oracle.annotate`.

    Attributes:
      oracle: scores the candidates.
      seed: seed of the errors.
      noise_rate: probability that best and worst are swapped. Not applied to test triplets: their
        answers measure the judge.
      margin: if the scores differ by less than this, the answer is ∅.
      name: name of the annotator.
    """

    oracle: SceneOracle
    seed: int
    noise_rate: float
    margin: float
    name: str = "oracle"

    def answer(self, asked: Asked) -> BestAndWorst:
        """See `annotation.annotator_interface.Annotator`."""
        triplet = SceneTruth.from_example(asked.example)
        scores = [self.oracle.scores(picture, triplet) for picture in asked.pictures]
        rng = generator(self.seed, "oracle", asked.name)
        noise_rate = self.noise_rate if asked.split == "train" else 0.0
        return annotate(scores, rng, noise_rate, self.margin)


def check(config: FrozenConfigDict) -> None:
    """Raises ValueError if the triplets are not from `mini.scene_source`."""
    require_scenes(config, "annotate.by")


def make_annotator(config: FrozenConfigDict) -> OracleAnnotator:
    """The annotator of `config.mini`."""
    section = config.mini
    return OracleAnnotator(
        SceneOracle.mini_world(), config.seed, section.noise_rate, section.margin
    )


def describe(config: FrozenConfigDict) -> str:
    """Description of the annotator for a model card."""
    rate = config.mini.noise_rate
    erring = f", made to err in {rate:.0%} of the pairs" if rate else ""
    return f"an oracle that knows how each scene was composed{erring}"
