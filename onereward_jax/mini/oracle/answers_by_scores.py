"""Converts oracle scores to annotators' answers: (winner, loser) or ∅ per dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onereward_jax.tasks import Dimension


def annotate(
    candidate_scores: Sequence[Mapping[Dimension, float]],
    rng: np.random.Generator,
    noise_rate: float,
    margin: float,
) -> dict[Dimension, tuple[int, int] | None]:
    """Best and worst candidate per dimension, each dimension independently (stage 1 of the paper).

    Args:
      candidate_scores: one mapping per candidate, all with the same dimensions.
      rng: drawn from once per dimension, whether or not there is a pair.
      noise_rate: probability in [0, 0.5] that winner and loser are swapped.
      margin: smallest difference of scores that gives a pair; below it the answer is ∅.

    Returns:
      (winner, loser) as candidate indices, or None for ∅.

    Raises:
      ValueError: fewer than two candidates, or a noise rate outside its range.
    """
    if len(candidate_scores) < 2:
        raise ValueError(f"need at least 2 candidates to compare, found {len(candidate_scores)}")
    if not 0.0 <= noise_rate <= 0.5:
        raise ValueError(f"noise_rate must be in [0, 0.5], found {noise_rate}")
    answers: dict[Dimension, tuple[int, int] | None] = {}
    for dimension in candidate_scores[0]:
        scores = np.array([candidate[dimension] for candidate in candidate_scores])
        winner, loser = int(scores.argmax()), int(scores.argmin())
        swapped = rng.random() < noise_rate
        if scores[winner] - scores[loser] < margin:
            answers[dimension] = None
        else:
            answers[dimension] = (loser, winner) if swapped else (winner, loser)
    return answers
