"""The stages of rounds 2 and later, made of those of round 1: see `chain.rounds`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.chain import fingerprints
from onereward_jax.chain.rounds import ROUND, config_in_round, in_round, numbered, rounds_of
from onereward_jax.chain.stage import Stage
from onereward_jax.chain.staleness import Effect, Fields, adds, comes_to, how, output, updates
from onereward_jax.stages.candidate_editors import from_policy

ONLY_LATER = Fields(Effect.HOW, ("later_rounds",), when={"rounds": ("2 or more",)})
"""Never read; explains why `config.later_rounds` has no effect in a run of one round."""

QUESTIONS = "questions"
"""Folder in the work folder with the questions of round 1."""


def with_rounds(
    config: ConfigDict, stages: tuple[Stage, ...]
) -> tuple[ConfigDict, tuple[Stage, ...]]:
    """Adds the stages of later rounds after `rl`; those behind it read the last round.

    Args:
      config: with the names of the stages of round 1; changed in place.
      stages: all known stages, in order.

    Raises:
      ValueError: there are rounds, but not all of their stages.
    """
    rounds = rounds_of(config)
    if rounds == 1:
        return config, tuple(map(_alone, stages))
    if lacking := [name for name in ROUND if name not in config.stages]:
        raise ValueError(
            f"config.rounds is {rounds}, but config.stages lacks {', '.join(lacking)}: each round "
            f"has the stages {', '.join(ROUND)}"
        )
    stages = tuple(map(_of_all_rounds, stages))
    table = {stage.name: stage for stage in stages}
    added = [_later(table[name], number) for number in range(2, rounds + 1) for name in ROUND]
    end = list(table).index("rl") + 1
    after = tuple(_reading_last(stage, rounds) for stage in stages[end:])
    stop = config.stages.index("rl") + 1
    names = (*config.stages[:stop], *(stage.name for stage in added), *config.stages[stop:])
    config.stages = names
    return config, (*stages[:end], *added, *after)


def _alone(stage: Stage) -> Stage:
    """A stage of a run of one round."""
    if stage.name != "candidates":
        return stage
    return dataclasses.replace(stage, fields=(*stage.fields, ONLY_LATER))


def _of_all_rounds(stage: Stage) -> Stage:
    """A stage of a run of several rounds: the bank of references has those of all."""
    if stage.name != "references":
        return stage
    return dataclasses.replace(stage, fields=(*stage.fields, adds("later_rounds.rl_steps")))


def _later(stage: Stage, number: int) -> Stage:
    """`stage` in round `number` > 1."""
    moved, policy = _reading(stage, number), in_round("rl", number - 1)

    def reads_also(config: FrozenConfigDict) -> dict[str, Effect]:
        found = dict(moved.reads_also(config))
        goes_on = stage.name == "rl" and config.later_rounds.rl == "policy"
        if stage.name == "candidates" or goes_on:
            found[policy] = Effect.OUTPUT
        for read in ("candidates", "annotate"):  # pairs of all rounds
            if in_round(read, number) in moved.reads | found and stage.name in ("reward", "rl"):
                found |= {in_round(read, one): Effect.OUTPUT for one in range(1, number)}
        return found

    return dataclasses.replace(
        moved,
        name=in_round(stage.name, number),
        summary=f"{stage.summary}, in round {number}",
        fields=(*stage.fields, *_fields(stage.name, number)),
        reads_also=reads_also,
        configured=functools.partial(_configured, stage=stage.name, number=number),
    )


def _configured(config: FrozenConfigDict, *, stage: str, number: int) -> FrozenConfigDict:
    return config_in_round(config, stage, number)


def _reading_last(stage: Stage, rounds: int) -> Stage:
    """A stage behind `rl`. The judges of all rounds are in the report."""
    moved = _reading(stage, rounds)
    if stage.name != "evaluate":
        return moved
    judges = {in_round("reward", number): Effect.UPDATES for number in range(1, rounds + 1)}
    return dataclasses.replace(moved, reads=judges | dict(moved.reads))


def _reading(stage: Stage, number: int) -> Stage:
    """The stage with the output of round `number` as its input."""

    def moved(reads: Mapping[str, Effect]) -> dict[str, Effect]:
        return {in_round(name, number): effect for name, effect in reads.items()}

    return dataclasses.replace(
        stage,
        reads=moved(stage.reads),
        reads_also=lambda config: moved(stage.reads_also(config)),
        round=number,
    )


def _fields(stage: str, number: int) -> tuple[Fields, ...]:
    """What a stage of a later round reads beside the fields of round 1."""
    if stage == "candidates":
        return (
            comes_to("later_rounds.from_policy", from_policy),
            output("later_rounds.weights"),
            updates("later_rounds.train", "later_rounds.test", "later_rounds.triplets"),
        )
    if stage == "annotate":
        answers = fingerprints.answers("annotate.path", folder=numbered(QUESTIONS, number))
        people = {"annotate.by": ("people", "web")}
        return (Fields(Effect.UPDATES, ("annotate.path",), people, digest=answers),)
    if stage == "reward":
        # The steps and the judge are compared as config.reward.steps and config.models.judge.
        return (
            how("later_rounds.reward_steps", "later_rounds.judge"),
            output("later_rounds.share"),
        )
    return (how("later_rounds.rl_steps"), output("later_rounds.rl"))
