"""How far to trust the judge: reliability curve, ECE, accuracy by agreement and by labels."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Integer

from onereward_jax.evaluation.intervals import FEW, wilson

BINS = 10
"""Largest number of bins of a reliability curve."""

LEVELS = (("all agree", 1.0), ("two thirds or more agree", 2 / 3), ("fewer agree", 0.0))
"""Groups of pairs by the smallest share of annotators on the same side."""


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of correct answers.

    Attributes:
      pairs: number of pairs.
      accuracy: share in [0, 1].
    """

    pairs: int
    accuracy: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `accuracy`, as if the pairs were independent."""
        return wilson(self.accuracy, self.pairs)


@dataclasses.dataclass(frozen=True)
class Bin(Share):
    """Pairs with similar confidence; `confidence` is its mean, in [0.5, 1]."""

    confidence: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The reliability curve, with bins of about equally many pairs, in ascending confidence.

    `error` is the expected calibration error: the mean distance of accuracy and confidence over
    bins, weighted by pairs (Naeini et al. 2015).
    """

    pairs: int
    error: float
    bins: tuple[Bin, ...]


@dataclasses.dataclass(frozen=True)
class AgreedShare(Share):
    """Accuracy on pairs of similar agreement; `annotators` describes it, see `LEVELS`."""

    annotators: str


@dataclasses.dataclass(frozen=True)
class LabelPoint(Share):
    """Accuracy of a judge trained on `labels` pairs of `sources` source pictures.

    `test_sources`: number of source pictures that the held-out pairs are of.
    """

    labels: int
    sources: int
    test_sources: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `accuracy` over held-out source pictures."""
        return wilson(self.accuracy, self.test_sources)


def symmetrized(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """P(a is better), from P("Yes") of (a, b) and of (b, a): the mean over both orders."""
    return (first + 1.0 - second) / 2.0


def calibration(better: Float[np.ndarray, " n"], label: Float[np.ndarray, " n"]) -> Calibration:
    """The reliability of probabilities that the first image is better.

    The confidence of a pair is the probability of the image that the judge prefers; the judge is
    right with the label's probability of that image.

    Args:
      better: the judge's probabilities in [0, 1].
      label: the labels in [0, 1].

    Raises:
      ValueError: no pairs.
    """
    if not len(better):
        raise ValueError("no held-out pairs to measure the judge on")
    confidence = np.maximum(better, 1.0 - better)
    right = np.where(better > 0.5, label, np.where(better < 0.5, 1.0 - label, 0.5))
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(BINS, max(1, len(order) // FEW)))
    bins = tuple(
        Bin(len(part), float(right[part].mean()), float(confidence[part].mean())) for part in parts
    )
    error = sum(one.pairs * abs(one.accuracy - one.confidence) for one in bins) / len(better)
    return Calibration(len(better), error, bins)


def accuracy_by_agreement(
    better: Float[np.ndarray, " n"],
    label: Float[np.ndarray, " n"],
    share: Float[np.ndarray, " n"],
    votes: Integer[np.ndarray, " n"],
) -> list[AgreedShare]:
    """Accuracy on decided pairs of at least two annotators, by how many of them agree.

    Args:
      better, label: see `calibration`.
      share: share of annotators that prefer the first image, ∅ half.
      votes: number of annotators of each pair.
    """
    several = (votes >= 2) & (label != 0.5)
    agree = np.maximum(share, 1.0 - share)
    right = np.where(better == 0.5, 0.5, (better > 0.5) == (label > 0.5))
    found, below = [], np.inf
    for name, least in LEVELS:
        chosen = several & (agree >= least - 1e-9) & (agree < below)
        below = least - 1e-9
        if chosen.any():
            found.append(AgreedShare(int(chosen.sum()), float(right[chosen].mean()), name))
    return found
