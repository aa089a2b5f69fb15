"""Inter-annotator agreement per task × dimension.

An answer is a nominal category: the pair (winner, loser), or ∅. With N candidates there are
N (N - 1) + 1 categories, so chance agreement is small and the raw rate is already informative.
Krippendorff's alpha corrects for chance, and for annotators who mostly answer ∅; any number of
annotators may answer any of the questions.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping

import krippendorff
import numpy as np

from onereward_jax.annotation.labelled_pairs import UNDECIDED_LABEL, majority, opinions
from onereward_jax.annotation.records import Preference
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement between the annotators of one task and dimension.

    `triplets` have at least two answers. `rate` in [0, 1]: share of equal answers among all pairs
    of answers to a triplet. `alpha`: Krippendorff's, 1 if all agree, 0 at chance, negative below.
    NaN when undefined (no shared triplet, or for alpha only one category ever used).
    """

    triplets: int
    annotators: int
    rate: float
    alpha: float


ONE_AGAINST_OTHERS = "one_against_others"
"""Key of `OneAgainstOthers` in a run's agreement.json."""


@dataclasses.dataclass(frozen=True)
class OneAgainstOthers:
    """How often one annotator agrees with the majority of the others (leave-one-out).

    `pairs`: answers on pairs that the majority of the other annotators decides, over all
    annotators. `accuracy` in [0, 1]: share of them on the side of that majority; ∅ counts half. A
    judge that does better than this is better than one annotator.
    """

    pairs: int
    accuracy: float


def agreement_by_dimension(
    preferences: Iterable[Preference],
) -> dict[tuple[Task, Dimension], Agreement]:
    """Agreement of every task × dimension that occurs in `preferences`."""
    groups: dict[tuple[Task, Dimension], dict[str, dict[str, Hashable]]] = {}
    for one in preferences:
        triplets = groups.setdefault((one.task, one.dimension), collections.defaultdict(dict))
        triplets[one.triplet_id][one.annotator] = (one.winner, one.loser)
    return {key: agreement_of(triplets) for key, triplets in groups.items()}


def overall_agreement(preferences: Iterable[Preference]) -> Agreement:
    """Agreement over all tasks and dimensions; `triplets` are then pairs (triplet, dimension)."""
    items: dict[str, dict[str, Hashable]] = collections.defaultdict(dict)
    for one in preferences:
        items[f"{one.triplet_id} {one.dimension}"][one.annotator] = (one.winner, one.loser)
    return agreement_of(items)


def agreement_of(triplets: Mapping[str, Mapping[Hashable, Hashable]]) -> Agreement:
    """Agreement on answers, given as triplet -> annotator -> answer."""
    shared = [answers for answers in triplets.values() if len(answers) >= 2]
    equal = [a == b for answers in shared for a, b in itertools.combinations(answers.values(), 2)]
    categories = {answer for answers in shared for answer in answers.values()}
    place = {answer: column for column, answer in enumerate(categories)}
    counts = np.zeros((len(shared), len(categories)), np.int64)
    for row, answers in enumerate(shared):
        for answer in answers.values():
            counts[row, place[answer]] += 1
    return Agreement(
        triplets=len(shared),
        annotators=len({name for answers in shared for name in answers}),
        rate=float(np.mean(equal)) if equal else math.nan,
        alpha=float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
        if len(categories) > 1
        else math.nan,
    )


def one_against_others(
    preferences: Iterable[Preference],
) -> dict[tuple[Task, Dimension], OneAgainstOthers]:
    """Leave-one-out accuracy of the annotators per task × dimension, where it can be measured."""
    items: dict[tuple[str, Dimension], list[Preference]] = collections.defaultdict(list)
    for one in preferences:
        items[one.triplet_id, one.dimension].append(one)
    right: dict[tuple[Task, Dimension], list[float]] = collections.defaultdict(list)
    for answers in items.values():
        for one in answers:
            others = [other for other in answers if other is not one]
            named = {(o.winner, o.loser) for o in others if o.winner is not None}
            for first, second in {tuple(sorted(pair)) for pair in named}:
                label = majority(opinions(others, first, second))
                if label != UNDECIDED_LABEL:
                    said = opinions([one], first, second)
                    right[one.task, one.dimension] += [1.0 - abs(vote - label) for vote in said]
    return {
        cell: OneAgainstOthers(len(found), float(np.mean(found)))
        for cell, found in right.items()
        if found
    }
