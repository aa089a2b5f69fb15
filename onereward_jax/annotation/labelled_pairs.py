"""Labelled pairs, from which the judge learns, and the rules that derive them from answers.

An answer of one annotator for one triplet and dimension gives an opinion on pairs of candidates:
the best beats every other candidate, every other candidate beats the worst, and ∅ calls all equal.
`compared_pairs` makes labels of these opinions (section 4.2 of the paper has one annotator and uses
the pair of best and worst).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from onereward_jax.annotation.records import Preference
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.common.rng import generator
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

CONSENSUS = ("each", "majority", "soft")
"""Values of `PairRules.consensus`."""

UNDECIDED = ("leave", "half")
"""Values of `PairRules.undecided`."""

UNDECIDED_LABEL = 0.5


@dataclasses.dataclass(frozen=True)
class LabelledPair:
    """Two pictures of one source picture, and how probably the first one is better.

    Attributes:
      split: "train" or "test"; all pairs of a source picture are in the same one.
      source: name of the source picture, or of its triplet, without the split.
      task, dimension: what was asked.
      prompt: the prompt of the triplet.
      folder: name of the folder of the pictures, see `stages.pair_source.PairSource`.
      first, second: paths of the pictures in that folder.
      size: height and width of both pictures in pixels.
      label: probability in [0, 1] that the first one is better.
      votes: number of annotators with an opinion on this pair.
      share: share in [0, 1] of them that prefer the first one; "no difference" counts half.
      image, mask: paths of source picture and mask in that folder, as they were given; "" if
        there is none, or if the pictures are the run's own, whose triplet has it.
      photo: name of the photograph, see `stages.photographs`; "" if judges share all of them.

    Raises:
      ValueError: a field is out of range.
    """

    split: str
    source: str
    task: Task
    dimension: Dimension
    prompt: str
    folder: str
    first: str
    second: str
    size: tuple[int, int]
    label: float
    votes: int
    share: float
    image: str = ""
    mask: str = ""
    photo: str = ""

    def __post_init__(self) -> None:
        where = f"pair of {self.source}"
        if self.dimension not in DIMENSIONS[self.task]:
            raise ValueError(f"{where}: {self.task.title} is not judged in {self.dimension.title}")
        for name in ("label", "share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{where}: {name} is {getattr(self, name)}, not in [0, 1]")
        if self.votes < 1:
            raise ValueError(f"{where}: votes is {self.votes}, at least 1 expected")

    @property
    def decided(self) -> bool:
        """Whether the label prefers one of the pictures."""
        return self.label != UNDECIDED_LABEL


@dataclasses.dataclass(frozen=True)
class PairRules:
    """How answers become labels.

    Attributes:
      consensus: "each": every answer is a pair of its own, with label 1. "majority": one label per
        compared pair, the most frequent opinion; a draw is ∅. "soft": one label per compared pair,
        the share of votes for the better candidate.
      undecided: what becomes of ∅. "leave": it gives no pair, and no vote to soft labels. "half":
        pairs with label 0.5. All pairs of candidates are then equal; as many of them are drawn as a
        decided answer gives, so that ∅ does not outweigh decisions. ∅ counts as half a vote.
      between: also compare the best and the worst candidate with those between them.
      seed: seed of the pairs drawn for ∅.
    """

    consensus: str = "each"
    undecided: str = "leave"
    between: bool = False
    seed: int = 0


class ComparedPair(NamedTuple):
    """Two candidates compared in a dimension; `label`, `votes`, `share` as in `LabelledPair`.

    The first one is the better one: the label is at least 0.5.
    """

    triplet_id: str
    task: Task
    dimension: Dimension
    first: int
    second: int
    label: float
    votes: int
    share: float


def compared_pairs(
    preferences: Iterable[Preference], candidates: Mapping[str, Sequence[int]], rules: PairRules
) -> Iterator[ComparedPair]:
    """The pairs of all triplets and dimensions, in this order.

    Args:
      preferences: answers of any number of annotators.
      candidates: triplet -> indices of its candidates.
      rules: how answers become labels.
    """
    by_item = collections.defaultdict(list)
    for one in preferences:
        by_item[one.triplet_id, one.dimension].append(one)
    for (triplet, _), answers in by_item.items():
        for first, second, label in _labels(answers, candidates[triplet], rules):
            if label < UNDECIDED_LABEL:
                first, second, label = second, first, 1.0 - label
            votes = opinions(answers, first, second)
            yield ComparedPair(
                triplet,
                answers[0].task,
                answers[0].dimension,
                first,
                second,
                label,
                len(votes),
                sum(votes) / len(votes),
            )


def _labels(
    answers: Sequence[Preference], candidates: Sequence[int], rules: PairRules
) -> Iterator[tuple[int, int, float]]:
    """(first, second, label) of one triplet and dimension."""
    if rules.consensus == "each":
        for one in answers:
            label = UNDECIDED_LABEL if one.winner is None else 1.0
            yield from ((*pair, label) for pair in _named(one, candidates, rules))
        return
    decided = [one for one in answers if one.winner is not None]
    named = (_named(one, candidates, rules) for one in decided or answers[:1])
    for first, second in dict.fromkeys(map(tuple, map(sorted, itertools.chain(*named)))):
        votes = opinions(answers, first, second)
        if rules.consensus == "majority":
            label = majority(votes)
            if rules.undecided == "half" or label != UNDECIDED_LABEL:
                yield first, second, label
        else:
            if rules.undecided == "leave":
                votes = [vote for vote in votes if vote != UNDECIDED_LABEL]
            yield first, second, sum(votes) / len(votes)


def _named(
    one: Preference, candidates: Sequence[int], rules: PairRules
) -> Iterator[tuple[int, int]]:
    """(better, worse) pairs of an answer; of ∅, as many drawn pairs, or none."""
    if one.winner is not None:
        yield one.winner, one.loser
        for other in candidates if rules.between else ():
            if other not in (one.winner, one.loser):
                yield one.winner, other
                yield other, one.loser
    elif rules.undecided == "half":
        every = list(itertools.combinations(candidates, 2))
        count = 2 * len(candidates) - 3 if rules.between else 1
        rng = generator(rules.seed, "undecided", one.triplet_id, one.dimension, one.annotator)
        for drawn in rng.permutation(len(every))[:count]:
            yield every[drawn]


def opinions(answers: Iterable[Preference], first: int, second: int) -> list[float]:
    """Votes on a pair: 1 the first candidate, 0 the second one, 0.5 ∅; none from the others."""
    votes = []
    for one in answers:
        if one.winner is None:
            votes.append(UNDECIDED_LABEL)
        elif first == one.winner or second == one.loser:
            votes.append(1.0)
        elif second == one.winner or first == one.loser:
            votes.append(0.0)
    return votes


def majority(votes: Sequence[float]) -> float:
    """The most frequent vote; 0.5 if two are equally frequent."""
    (vote, count), *others = collections.Counter(votes).most_common(2)
    return UNDECIDED_LABEL if others and others[0][1] == count else vote


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[LabelledPair]) -> None:
    """Writes a pair per line as a JSON object with the fields of `LabelledPair`, atomically."""
    with atomic_file(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(dataclasses.asdict(pair), ensure_ascii=False) + "\n")


def read_pairs(path: str | os.PathLike[str]) -> list[LabelledPair]:
    """Reads a file of `write_pairs`.

    Raises:
      ValueError: a line is not a pair; names the line.
    """
    pairs = []
    for number, line in json_lines(Path(path)):
        try:
            fields = json_object(line)
            fields["task"], fields["dimension"] = (
                Task(fields["task"]),
                Dimension(fields["dimension"]),
            )
            pairs.append(LabelledPair(**fields | {"size": tuple(fields["size"])}))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return pairs
