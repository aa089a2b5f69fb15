"""Stage `annotate`: best and worst candidate per dimension, or ∅, by people or by the oracle."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.annotation.questions import Asked, read_answers, write_questions
from onereward_jax.common.rng import generator
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.candidates import STORE
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import TASKS, Dimension, Task

ORACLE, PEOPLE = "oracle", "people"

QUESTIONS = "questions"
"""Folder of the work folder with what people are asked, and the pictures it is about."""


class _Group(NamedTuple):
    """A triplet with its candidates."""

    split: str
    row: int
    candidates: list[Candidate]


def run(context: StageContext) -> Results:
    """Writes a store with candidates and answers; returns how many pairs and ∅ there are.

    Raises:
      ValueError: an annotator that this stage does not have, the oracle without a mini world, bad
        answers of people, or none yet: then the questions have been written.
    """
    by, source = context.config.annotate.by, context.config.data.source
    if by not in (ORACLE, PEOPLE):
        raise ValueError(f"config.annotate.by is {by!r}: choose {ORACLE} or {PEOPLE}")
    if by == ORACLE and source != "mini":
        raise ValueError(
            f"config.annotate.by is {by!r}, who knows the mini world only: choose {PEOPLE} for "
            f"config.data.source = {source!r}"
        )
    splits = {split: open_triplets(context, split) for split in ("train", "test")}
    groups = _groups(context, splits)
    answers = _answers_of_people(context, splits, groups) if by == PEOPLE else []
    with PreferenceStore(context.folder / STORE) as store:
        if by == ORACLE:
            _ask_oracle(context, splits, groups, store)
        else:
            store.add_candidates(one for group in groups.values() for one in group.candidates)
            store.add_preferences(answers)
        preferences = store.preferences()
    pairs = sum(one.winner is not None for one in preferences)
    return {"pairs": pairs, "undecided": len(preferences) - pairs}


def _groups(context: StageContext, splits: Mapping[str, Triplets]) -> dict[str, _Group]:
    """What there are candidates of, by its name in the store."""
    with PreferenceStore(context.output("candidates") / STORE) as made:
        candidates = made.candidates()  # ordered by triplet
    rows = {
        f"{split}/{name}": (split, row)
        for split, triplets in splits.items()
        for row, name in enumerate(triplets.column("id"))
    }
    return {
        name: _Group(*rows[name], list(group))
        for name, group in itertools.groupby(candidates, key=lambda one: one.triplet_id)
    }


def _answers_of_people(
    context: StageContext, splits: Mapping[str, Triplets], groups: Mapping[str, _Group]
) -> list[Preference]:
    """What people answered in the file `config.annotate.path`.

    Raises:
      ValueError: no file is named; the questions are written then.
    """
    config = context.config.annotate
    if not config.path:
        path = context.workdir / QUESTIONS / "questions.jsonl"
        count = write_questions(path, _asked(context, splits, groups))
        raise ValueError(
            f"config.annotate.path is empty. {count} questions for people are in {path}: let them "
            "add best and worst to its lines, and name the file with their answers"
        )
    tasks = {name: TASKS[splits[one.split].tasks[one.row]] for name, one in groups.items()}
    counts = {name: len(one.candidates) for name, one in groups.items()}
    return read_answers(Path(config.path), tasks, counts)


def _asked(
    context: StageContext, splits: Mapping[str, Triplets], groups: Mapping[str, _Group]
) -> list[Asked]:
    """Every triplet with candidates, its picture and mask saved; paths relative to `QUESTIONS`."""
    folder, asked = context.workdir / QUESTIONS, []
    made = os.path.relpath(context.output("candidates"), folder)
    with progress_bar("questions", len(groups), unit="triplet") as bar:
        for name, (split, row, candidates) in groups.items():
            example = splits[split][row]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            paths = {part: f"{name}-{part}.png" for part in ("image", "mask")}
            Image.fromarray(example["image"]).save(folder / paths["image"])
            Image.fromarray(example["mask"][..., 0]).save(folder / paths["mask"])
            pictures = tuple(f"{made}/{one.picture}" for one in candidates)
            task = TASKS[splits[split].tasks[row]]
            asked.append(Asked(name, task, example["prompt"], **paths, candidates=pictures))
            bar.update()
    return asked


def _ask_oracle(
    context: StageContext,
    splits: Mapping[str, Triplets],
    groups: Mapping[str, _Group],
    store: PreferenceStore,
) -> None:
    """Adds the oracle's answers where they are missing.

    Labels of held-out triplets carry no noise: they measure the judge.
    """
    from onereward_jax.evaluation.oracle import Oracle, Triplet, annotate  # extra `mini`

    config, pictures = context.config.annotate, context.output("candidates")
    oracle, answered = Oracle.mini_world(), {old.triplet_id for old in store.preferences()}
    with progress_bar("annotate", len(groups), initial=len(answered), unit="triplet") as bar:
        for name, (split, row, candidates) in groups.items():
            if name in answered:
                continue
            store.add_candidates(candidates)
            started = time.time()
            triplet = Triplet.from_example(splits[split][row])
            scores = [
                oracle.scores(np.asarray(Image.open(pictures / one.picture)), triplet)
                for one in candidates
            ]
            rng = generator(context.config.seed, "oracle", name)
            noise_rate = config.noise_rate if split == "train" else 0.0
            answers = annotate(scores, rng, noise_rate, config.margin)
            finished = time.time()
            store.add_preferences(
                _preferences(answers, name, triplet.task, candidates, finished, finished - started)
            )
            bar.update()


def _preferences(
    answers: Mapping[Dimension, tuple[int, int] | None],
    name: str,
    task: Task,
    candidates: Sequence[Candidate],
    finished: float,
    seconds: float,
) -> list[Preference]:
    """The oracle's answers about a triplet, as the store has them."""
    return [
        Preference(
            triplet_id=name,
            task=task,
            dimension=dimension,
            winner=None if pair is None else candidates[pair[0]].index,
            loser=None if pair is None else candidates[pair[1]].index,
            annotator=ORACLE,
            answered_at=finished,
            seconds=seconds / len(answers),
        )
        for dimension, pair in answers.items()
    ]
