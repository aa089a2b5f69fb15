"""Accuracy of the reward model on held-out preferences (Table 1), and its position bias."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from onereward_jax.evaluation.intervals import FEW, wilson
from onereward_jax.tasks import Dimension, Task

_EXTEND = {
    Dimension.TEXT_ALIGNMENT: 80.36,
    Dimension.CONSISTENCY: 72.50,
    Dimension.STRUCTURE: 74.29,
    Dimension.AESTHETICS: 71.10,
}

PAPER_ACCURACY: Mapping[tuple[Task, Dimension], float] = types.MappingProxyType(
    {
        (Task.FILL, Dimension.TEXT_ALIGNMENT): 83.77,
        (Task.FILL, Dimension.CONSISTENCY): 74.23,
        (Task.FILL, Dimension.STRUCTURE): 74.63,
        (Task.FILL, Dimension.AESTHETICS): 72.10,
        **{(Task.EXTEND_WITH_PROMPT, dimension): value for dimension, value in _EXTEND.items()},
        **{
            (Task.EXTEND_WITHOUT_PROMPT, dimension): value
            for dimension, value in _EXTEND.items()
            if dimension is not Dimension.TEXT_ALIGNMENT
        },
        (Task.REMOVAL, Dimension.REMOVAL_QUALITY): 84.93,
    }
)
"""Table 1 in %; the paper has one row for both extend tasks."""


@dataclasses.dataclass(frozen=True)
class JudgeAccuracy:
    """The judge on `pairs` held-out pairs; all fractions in [0, 1].

    `accuracy`: fraction of pairs with P(Yes | winner, loser) > P(Yes | loser, winner); ties count
    half. `single_order_accuracy`: fraction of correct answers at threshold 0.5 in a single order,
    averaged over both orders, as in training. `position_bias`: mean P(Yes) over both orders minus
    0.5, positive if the judge prefers the first image. `inconsistent`: fraction of pairs with the
    same answer (both Yes or both No) in both orders. `sources`: number of source pictures that the
    pairs are of; None: as many as pairs.
    """

    pairs: int
    accuracy: float
    single_order_accuracy: float
    position_bias: float
    inconsistent: float
    sources: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `accuracy` over sources: pairs of one are not independent."""
        return wilson(self.accuracy, self.sources or self.pairs)

    @property
    def few(self) -> bool:
        """Whether there are too few pairs for a conclusion."""
        return self.pairs < FEW


def judge_accuracy(
    winner_first: Float[np.ndarray, " n"], loser_first: Float[np.ndarray, " n"]
) -> JudgeAccuracy:
    """Accuracy and position bias, from P("Yes") in [0, 1] of each pair in both orders.

    `winner_first` is P(Yes | x_w, x_l, q), `loser_first` P(Yes | x_l, x_w, q).

    Raises:
      ValueError: no pairs, or values outside [0, 1] (including NaN).
    """
    if not len(winner_first):
        raise ValueError("no held-out pairs to measure the judge on")
    for name, values in (("winner_first", winner_first), ("loser_first", loser_first)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"{name} must be probabilities, found {values.min()} to {values.max()}"
            )
    right = np.where(winner_first == loser_first, 0.5, winner_first > loser_first)
    yes, also_yes = winner_first > 0.5, loser_first > 0.5
    return JudgeAccuracy(
        pairs=len(winner_first),
        accuracy=float(right.mean()),
        single_order_accuracy=float((yes.mean() + (~also_yes).mean()) / 2),
        position_bias=float((winner_first.mean() + loser_first.mean()) / 2 - 0.5),
        inconsistent=float((yes == also_yes).mean()),
    )


def judge_accuracy_table(
    tasks: Sequence[Task],
    dimensions: Sequence[Dimension],
    winner_first: Float[np.ndarray, " n"],
    loser_first: Float[np.ndarray, " n"],
    sources: Sequence[str] | None = None,
) -> dict[tuple[Task, Dimension], JudgeAccuracy]:
    """`judge_accuracy` for every task × dimension among the n pairs.

    Args:
      tasks, dimensions: of each pair.
      winner_first, loser_first: see `judge_accuracy`.
      sources: name of each pair's source picture; None: all differ.

    Raises:
      ValueError: `tasks` and `dimensions` do not have one item per pair.
    """
    keys = list(zip(tasks, dimensions, strict=True))
    if len(keys) != len(winner_first):
        raise ValueError(f"{len(keys)} tasks and dimensions for {len(winner_first)} pairs")
    table = {}
    for key in dict.fromkeys(keys):
        chosen = np.array([other == key for other in keys])
        found = judge_accuracy(winner_first[chosen], loser_first[chosen])
        if sources is not None:
            of_cell = {source for source, other in zip(sources, keys, strict=True) if other == key}
            found = dataclasses.replace(found, sources=len(of_cell))
        table[key] = found
    return table
