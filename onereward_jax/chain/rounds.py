"""Rounds: candidates, annotate, reward and rl again, with the policy of the round before.

Round 1 is the paper's. The stages of round 2 are called candidates-2, annotate-2, ... and so are
their folders. Settings are those of round 1, but for `config.later_rounds`.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePath

from ml_collections import ConfigDict, FrozenConfigDict

ROUND = ("candidates", "annotate", "reward", "rl")
"""The stages of each round. Earlier ones run once; later ones read the last round."""

SEED_DIGITS = 12
"""Hexadecimal digits of a round's seed."""


def numbered(name: str, number: int) -> str:
    """The name of a stage, or of a folder, in a round: "rl", "rl-2", "rl-3"."""
    return f"{name}-{number}" if number > 1 else name


def in_round(stage: str, number: int) -> str:
    """The name of `stage` in a round; stages that are not of a round have one name."""
    return numbered(stage, number) if stage in ROUND else stage


def rounds_of(config: ConfigDict | FrozenConfigDict) -> int:
    """Number of rounds; 1 for a config without the field, or with a value that is refused later."""
    rounds = config.get("rounds", 1)
    return rounds if isinstance(rounds, int) and rounds > 1 else 1


def config_in_round(config: FrozenConfigDict, stage: str, number: int) -> FrozenConfigDict:
    """The config as a stage of round `number` sees it.

    `rl` has a seed of its own, so that it does not repeat the batches and noises of the round
    before. Answers named by `config.annotate.path` are in the file or folder of that name with
    the round's number: answers.jsonl, answers-2.jsonl.
    """
    later, changed = config.later_rounds, ConfigDict(config.to_dict())
    if stage == "annotate" and config.annotate.path:
        changed.annotate.path = _numbered_path(config.annotate.path, number)
    if stage == "reward":
        if later.reward_steps is not None:
            changed.reward.steps = later.reward_steps
        if later.judge == "last":
            changed.models.judge = f"stage:{in_round('reward', number - 1)}/judge"
    if stage == "rl":
        if later.rl_steps is not None:
            changed.rl.steps = later.rl_steps
        digest = hashlib.sha256(f"{config.seed} round {number}".encode()).hexdigest()
        changed.seed = int(digest[:SEED_DIGITS], 16)
    return FrozenConfigDict(changed)


def _numbered_path(named: str, number: int) -> str:
    path = named.rstrip("/")
    suffix = PurePath(path).suffix
    return f"{path.removesuffix(suffix)}-{number}{suffix}"
