"""Inter-annotator agreement per task × dimension.

An answer is a nominal category: the pair (winner, loser), or ∅. With N candidates there are
N (N - 1) + 1 categories, so chance agreement is small and the raw rate is already informative.
Kappa corrects for chance, and for annotators who mostly answer ∅.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from onereward_jax.annotation.records import Preference
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement between the annotators of one task and dimension.

    `triplets` have at least two answers. `rate` in [0, 1]: share of equal answers among all pairs
    of answers to a triplet. `cohen_kappa`: mean over pairs of annotators, weighted by how many
    triplets they share. `fleiss_kappa`: all annotators at once. Both in [-1, 1], 0 = chance;
    NaN when undefined (no shared triplet, or only one category ever used).
    """

    triplets: int
    annotators: int
    rate: float
    cohen_kappa: float
    fleiss_kappa: float


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


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen (1960): (p_o - p_e) / (1 - p_e) of two annotators' answers to the same items.

    Raises:
      ValueError: the sequences differ in length.
    """
    observed = [a == b for a, b in zip(first, second, strict=True)]
    if not observed:
        return math.nan
    shares, others = collections.Counter(first), collections.Counter(second)
    chance = sum(count * others[answer] for answer, count in shares.items()) / len(observed) ** 2
    return _beyond_chance(float(np.mean(observed)), chance)


def fleiss_kappa(counts: Int[np.ndarray, "items categories"]) -> float:
    """Fleiss (1971), for any number of answers per item.

    Items with fewer than two answers are ignored. If the number of answers varies, an item's
    agreement is weighted by its number of answers; with equal numbers this is Fleiss' formula.
    """
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return math.nan
    answers = counts.sum(1)
    agreeing = (counts * (counts - 1)).sum(1) / (answers * (answers - 1))
    observed = float(np.average(agreeing, weights=answers))
    shares = counts.sum(0) / counts.sum()
    return _beyond_chance(observed, float((shares**2).sum()))


def _beyond_chance(observed: float, chance: float) -> float:
    return math.nan if math.isclose(chance, 1.0) else (observed - chance) / (1.0 - chance)


def agreement_of(triplets: Mapping[str, Mapping[str, Hashable]]) -> Agreement:
    """Agreement on answers, given as triplet -> annotator -> answer."""
    shared = [answers for answers in triplets.values() if len(answers) >= 2]
    annotators = sorted({name for answers in shared for name in answers})
    equal = [a == b for answers in shared for a, b in itertools.combinations(answers.values(), 2)]

    kappas, sizes = [], []
    for first, second in itertools.combinations(annotators, 2):
        both = [answers for answers in shared if first in answers and second in answers]
        kappa = cohen_kappa([a[first] for a in both], [a[second] for a in both])
        if not math.isnan(kappa):
            kappas.append(kappa)
            sizes.append(len(both))

    categories = sorted({answer for answers in shared for answer in answers.values()}, key=repr)
    counts = np.zeros((len(shared), len(categories)), np.int64)
    for row, answers in enumerate(shared):
        for answer in answers.values():
            counts[row, categories.index(answer)] += 1
    return Agreement(
        triplets=len(shared),
        annotators=len(annotators),
        rate=float(np.mean(equal)) if equal else math.nan,
        cohen_kappa=float(np.average(kappas, weights=sizes)) if kappas else math.nan,
        fleiss_kappa=fleiss_kappa(counts),
    )
