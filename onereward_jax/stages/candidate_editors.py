"""Which editor makes which candidate: the base in round 1, base and current policy in later ones.

Groups that mix both are what a judge needs that the policy has learnt to cheat: it sees where the
policy is worse than the base although the judge preferred it.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.rng import generator

BASE, POLICY = "base", "policy"
"""The editors."""

_BY_POLICY = f"-{POLICY}.png"


def from_policy(config: FrozenConfigDict) -> int:
    """How many candidates of a triplet the policy makes in a later round; by default half.

    Raises:
      ValueError: more than there are candidates.
    """
    count, wanted = config.candidates.count, config.later_rounds.from_policy
    if wanted is None:
        return count // 2
    if wanted > count:
        raise ValueError(
            f"config.later_rounds.from_policy is {wanted}, but config.candidates.count is {count}"
        )
    return wanted


def editors_of(config: FrozenConfigDict, split: str, name: str, round: int) -> list[str]:
    """The editor of each candidate of a triplet, by index.

    The order is random for each triplet: people must not learn which places are the policy's.

    Args:
      config: the full config.
      split, name: the triplet.
      round: the round.
    """
    count = config.candidates.count
    if round == 1:
        return [BASE] * count
    order = generator(config.seed, "editors", f"round {round}", split, name).permutation(count)
    return [POLICY if place < from_policy(config) else BASE for place in order]


def picture_of(split: str, name: str, index: int, editor: str) -> str:
    """Path of a candidate's picture, which tells its editor to `editor_of`."""
    end = _BY_POLICY if editor == POLICY else ".png"
    return f"pictures/{split}/{name}-{index}{end}"


def editor_of(picture: str) -> str:
    """The editor that made a candidate, by the path of its picture."""
    return POLICY if picture.endswith(_BY_POLICY) else BASE


def weights_of(context: StageContext, editor: str) -> Path:
    """The transformer, or the adapter, of an editor: that of the last round if it is the policy."""
    if editor == BASE:
        return context.base_transformer()
    return context.output("rl", context.round - 1) / context.config.later_rounds.weights
