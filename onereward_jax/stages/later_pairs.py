"""The share of a judge's batches that pairs of later rounds fill: `config.later_rounds.share`.

A later round has few pairs beside those of round 1, but they show what the policy does now.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.rounds import in_round
from onereward_jax.chain.stage import StageContext
from onereward_jax.stages.own_candidates import OWN, rounds_so_far


def with_later_share(
    context: StageContext, pairs: Sequence[LabelledPair]
) -> Sequence[LabelledPair]:
    """Training pairs, those of later rounds repeated until they are the share of each task's pairs.

    Unchanged in round 1, without a share, and for tasks where they are more than that already.
    """
    share = context.config.later_rounds.share
    if share is None or context.round == 1:
        return pairs
    later = {in_round(OWN, number) for number in rounds_so_far(context) if number > 1}
    return repeated(pairs, [pair.folder in later for pair in pairs], share)


def repeated(
    pairs: Sequence[LabelledPair], later: Sequence[bool], share: float
) -> list[LabelledPair]:
    """The pairs, each task's later ones repeated evenly until at least `share` of its pairs are.

    Args:
      pairs: the pairs of all rounds.
      later: whether each is of a later round.
      share: in (0, 1).
    """
    added: list[LabelledPair] = []
    for task in dict.fromkeys(pair.task for pair in pairs):
        new = [pair for pair, is_new in zip(pairs, later) if is_new and pair.task is task]
        old = sum(pair.task is task for pair in pairs) - len(new)
        lacking = round(old * share / (1 - share)) - len(new)
        added += itertools.islice(itertools.cycle(new), max(lacking, 0))
    return [*pairs, *added]
