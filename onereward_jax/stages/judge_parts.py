"""The judges that the stage `reward` trains, and the pairs that each learns from.

`config.reward.judges` judges differ in their seed: the order of the pairs, their mirroring and
jitter, an adapter's first weights. With `judge_share` each learns from its own share of the
photographs. The held-out judge learns from photographs (`held_out`) that no other judge sees. With
`validation`, a share of a judge's own photographs is kept to measure it while it is trained; the
test pairs, which measure the accuracy, are not used for that.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.base_models import made_by
from onereward_jax.common.rng import generator

HELD_OUT = "judge-held-out"
"""Folder of the held-out judge."""


@dataclasses.dataclass(frozen=True)
class JudgePart:
    """A judge to train.

    Attributes:
      name: name of its folder.
      seed: seed of its training.
      train, validation: its pairs; none to validate with `config.reward.validation` 0.
    """

    name: str
    seed: int
    train: Sequence[LabelledPair]
    validation: Sequence[LabelledPair]

    @property
    def logs(self) -> str | None:
        """Folder of its logs, checkpoints and accuracy; None for the stage's own."""
        return None if self.name == "judge" else self.name.replace("judge", "training")


def judge_names(judges: int) -> list[str]:
    """The folders of the judges of an ensemble: judge, judge-2, ..."""
    return ["judge", *(f"judge-{number}" for number in range(2, judges + 1))]


def divides(config: FrozenConfigDict) -> bool:
    """Whether judges learn from different photographs, so that pairs need their `photo`."""
    section = config.reward
    return bool(section.held_out or section.validation or section.judge_share < 1.0)


def check_parts(config: FrozenConfigDict) -> None:
    """Raises ValueError if fields contradict each other."""
    section = config.reward
    if section.keep_best and not section.validation:
        raise ValueError(
            "config.reward.keep_best is True and config.reward.validation is 0: expected a share "
            "of the photographs to choose the best judge by, such as 0.1"
        )
    if section.held_out and made_by(config, "models.judge").startswith("reward"):
        raise ValueError(
            f"config.reward.held_out is {section.held_out:g} and later rounds train the judge of "
            "the round before, which has seen the photographs of the held-out judge: expected "
            'config.later_rounds.judge "first"'
        )


def judge_parts(config: FrozenConfigDict, pairs: Sequence[LabelledPair]) -> list[JudgePart]:
    """The judges, those of the ensemble first, the held-out one last.

    Args:
      config: the full config.
      pairs: all training pairs; with their photographs if `divides`.

    Raises:
      ValueError: a judge has no decided pair; names the field.
    """
    section, seed = config.reward, config.seed
    held_out: list[LabelledPair] = []
    if section.held_out:
        held_out, pairs = divided(pairs, section.held_out, seed, "held_out")
        _require(held_out, "held_out", section.held_out)
        _require(pairs, "held_out", section.held_out)
    seeds = {"judge": seed}
    parts = []
    for name in [*judge_names(section.judges), *([HELD_OUT] if held_out else [])]:
        own = seeds.get(name, int(generator(seed, name).integers(2**63)))
        train, validation = held_out if name == HELD_OUT else pairs, []
        if section.judge_share < 1.0 and name != HELD_OUT:
            train = divided(train, section.judge_share, own, "judge_share")[0]
            _require(train, "judge_share", section.judge_share)
        if section.validation:
            validation, train = divided(train, section.validation, own, "validation")
            _require(validation, "validation", section.validation)
            _require(train, "validation", section.validation)
        parts.append(JudgePart(name, own, train, validation))
    return parts


def divided(
    pairs: Sequence[LabelledPair], share: float, seed: int, name: str
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Pairs of about `share` of the training data, and the rest; no photograph is in both.

    Photographs are drawn until they have this share of the pairs; at least one is. Their order
    depends on the seed and their names alone, so that new photographs move few others.
    """
    counts = collections.Counter(pair.photo for pair in pairs)
    drawn: set[str] = set()
    total = 0
    for photo in sorted(counts, key=lambda photo: generator(seed, name, photo).random()):
        if drawn and total + counts[photo] / 2 > share * len(pairs):
            continue
        drawn.add(photo)
        total += counts[photo]
    return (
        [pair for pair in pairs if pair.photo in drawn],
        [pair for pair in pairs if pair.photo not in drawn],
    )


def _require(pairs: Sequence[LabelledPair], field: str, value: float) -> None:
    if not any(pair.decided for pair in pairs):
        raise ValueError(
            f"config.reward.{field} is {value:g}: with so few photographs, a judge would have no "
            "decided pair; expected another share, or answers about more photographs"
        )
