"""Stage `annotate`: best and worst candidate per dimension, or ∅, by people or by a plug-in.

preferences.sqlite   candidates and preferences; those of people are rebuilt from all answers
agreement.json       annotator agreement, per task and dimension

The questions to people are in the work folder: questions/questions.jsonl and the images it names;
those of round 2 in questions-2, where places and files do not tell which editor made an image.
People edit that folder: the stage only adds to it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.annotation.agreement import (
    ONE_AGAINST_OTHERS,
    Agreement,
    agreement_by_dimension,
    one_against_others,
    overall_agreement,
)
from onereward_jax.annotation.annotator_interface import Annotator, Asked
from onereward_jax.annotation.answers import Answers
from onereward_jax.annotation.picture_digests import question_digest
from onereward_jax.annotation.questions import FILE, Question
from onereward_jax.annotation.web_settings import GOLD
from onereward_jax.chain.plugins import check_plugin, maker
from onereward_jax.chain.stage import InputsChanged, Results, StageContext
from onereward_jax.common.user_errors import WaitingForPeople
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.intervals import counted
from onereward_jax.parallel.distributed import is_multiprocess
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.stages.ask_people import answers_path, ask, team_guidelines
from onereward_jax.stages.candidate_editors import POLICY, editor_of
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.later_rounds import QUESTIONS
from onereward_jax.stages.people_answers import answered_by, read_all_answers
from onereward_jax.stages.preference_stores import new_store, open_store, read_store
from onereward_jax.stages.question_pictures import question_paths, save_question_pictures
from onereward_jax.stages.web_annotation import check_web, serve_until
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension

WEB = "web"
PEOPLE = ("people", WEB)
"""Values of `config.annotate.by` that are no plug-ins."""

AGREEMENT = "agreement.json"


class _Group(NamedTuple):
    """A triplet with its candidates."""

    split: str
    row: int
    candidates: list[Candidate]


def check(context: StageContext) -> None:
    """Checks the section before the chain starts; raises ValueError or FileNotFoundError."""
    config = context.config.annotate
    if config.by not in PEOPLE:
        check_plugin(context.config, "annotate.by")
        return
    team_guidelines(context.config)
    # Answers to a later round are given during the run.
    if config.path and context.round == 1 and not _answers(context).exists():
        raise FileNotFoundError(
            f"config.annotate.path: there is neither a file nor a folder {config.path}"
        )
    if config.by == WEB:
        check_web(context)


def _answers(context: StageContext) -> Path:
    return answers_path(context, context.config.annotate.path, context.in_round(QUESTIONS))


def run(context: StageContext) -> Results:
    """Writes a store with candidates and answers; returns the number of pairs and of ∅.

    Raises:
      ValueError: the section or answers of people are invalid.
      WaitingForPeople: too few questions are answered. The questions are written before.
      InputsChanged: people have answered enough while this process served the questions.
    """
    check(context)
    splits = {split: open_triplets(context, split) for split in ("train", "test")}
    groups = _groups(context, splits)
    if context.config.annotate.by not in PEOPLE:
        with open_store(context) as store:
            _ask_annotator(context, splits, groups, store)
            return _counts(context, groups, store.preferences())
    answers = _ask_people(context, splits, groups)
    preferences = _preferences_of_people(answers, splits, groups)
    with new_store(context) as store:
        store.add_candidates(one for group in groups.values() for one in group.candidates)
        store.add_preferences(preferences)
    return _counts(context, groups, preferences) | _tell_agreement(context, preferences)


def _counts(
    context: StageContext, groups: Mapping[str, _Group], preferences: Sequence[Preference]
) -> Results:
    """Numbers of pairs and of ∅; in later rounds also how often the policy beats the base."""
    decided = [one for one in preferences if one.winner is not None]
    counts = {"pairs": len(decided), "undecided": len(preferences) - len(decided)}
    if context.round == 1:
        return counts
    wins = []
    for one in decided:
        made = {drawn.index: drawn.picture for drawn in groups[one.triplet_id].candidates}
        winner, loser = editor_of(made[one.winner]), editor_of(made[one.loser])
        if winner != loser:
            wins.append(winner == POLICY)
    if not wins:
        return counts | {"policy_better": "not measured (no pair of policy and base)"}
    share = f"{100 * sum(wins) / len(wins):.1f} % ({counted(len(wins), 'pair')} with the base)"
    return counts | {"policy_better": share}


def _groups(context: StageContext, splits: Mapping[str, Triplets]) -> dict[str, _Group]:
    """The triplets in the data that have candidates, by name in the store."""
    with read_store(context, "candidates") as made:
        candidates = made.candidates()  # ordered by triplet
    rows = {
        f"{split}/{name}": (split, row)
        for split, triplets in splits.items()
        for row, name in enumerate(triplets.column("id"))
    }
    return {
        name: _Group(*rows[name], list(group))
        for name, group in itertools.groupby(candidates, key=lambda one: one.triplet_id)
        if name in rows
    }


def _ask_people(
    context: StageContext, splits: Mapping[str, Triplets], groups: Mapping[str, _Group]
) -> Answers:
    """Writes missing questions; returns the answers if there are enough.

    Raises:
      ValueError: answers are invalid, or all are given and a split has no decided pair.
      WaitingForPeople: there are too few.
      InputsChanged: there were too few, and the page has been served until there were enough.
    """
    config = context.config.annotate
    questions, folder = _questions(context, splits, groups), context.in_round(QUESTIONS)
    ask(context, folder, questions)
    each = config.web.overlap if config.by == WEB else 1

    def read() -> Answers:
        return read_all_answers(context, config.path, folder, questions)

    def count() -> tuple[int, bool]:
        found = read()
        return answered_by(found, each), not _missing(context, found, questions, each, splits)

    answers = read()
    if answers.elsewhere:
        announce(f"annotate: {answers.about_elsewhere()}")
    if missing := _missing(context, answers, questions, each, splits):
        if config.by != WEB:
            raise WaitingForPeople(f"annotate: {missing}; then run the same command to resume")
        if is_multiprocess():
            raise WaitingForPeople(
                f"annotate: {missing}; a run with several processes does not serve them itself: "
                f"onereward people serve --workdir={context.folders.place(context.workdir)}; then "
                "run the same command to resume"
            )
        serve_until(context, _asked(questions), count)
        raise InputsChanged
    return answers


def _asked(questions: Sequence[Question]) -> int:
    return sum(len(question.dimensions) for question in questions)


def _missing(
    context: StageContext,
    answers: Answers,
    questions: Sequence[Question],
    each: int,
    splits: Mapping[str, Triplets],
) -> str:
    """What the run waits for; "" if there are enough answers.

    Args:
      context: context of the stage.
      answers, questions: all of them.
      each: number of annotators that a question needs.
      splits: each must have a preferred candidate.

    Raises:
      ValueError: all questions are answered and a split has no decided pair.
    """
    file = context.folders.place(context.workdir / context.in_round(QUESTIONS) / FILE)
    asked, answered = _asked(questions), answered_by(answers, each)
    needed = max(1, math.ceil(context.config.annotate.enough * asked - 1e-9))
    if answered < needed:
        what = "the rest" if needed == asked else f"{needed} answers"
        named = context.config.annotate.path
        where = f" in {named}" if named else ""
        who = f" by {each} annotators" if each > 1 else ""
        told = f"{answered} of {asked} questions are answered{who}{where}"
        round = f"round {context.round}: " if context.round > 1 else ""
        return f"{round}{told}; waiting for {what}: {file}"
    decided = {one.triplet.partition("/")[0] for one in answers.given if one.best is not None}
    if missing := [split for split in splits if split not in decided]:
        sentence = (
            f"no answer prefers a candidate in the split {' and '.join(missing)}, but the judge "
            "needs pairs for training (train) and evaluation (test)"
        )
        if answered < asked:
            return f"{sentence}; waiting for more: {file}"
        raise ValueError(f"{_answers(context)}: {sentence}")
    return ""


def _questions(
    context: StageContext, splits: Mapping[str, Triplets], groups: Mapping[str, _Group]
) -> list[Question]:
    """One question per triplet with candidates; writes missing images."""
    folder, questions = context.workdir / context.in_round(QUESTIONS), []
    made, prompts = (
        context.output("candidates"),
        {split: triplets.column("prompt") for split, triplets in splits.items()},
    )
    with (
        progress_bar("questions", len(groups), unit="triplet") as bar,
        stop_points("annotate", alone=True) as stop,
    ):
        for name, (split, row, candidates) in groups.items():
            task, prompt = TASKS[splits[split].tasks[row]], prompts[split][row]
            source, digests = candidates[0].source_digest, [one.digest for one in candidates]
            paths = question_paths(name, source, digests)
            save_question_pictures(
                folder,
                paths,
                source,
                lambda split=split, row=row: splits[split][row],
                [made / one.picture for one in candidates],
                blinded=context.round > 1,
            )
            questions.append(
                Question(
                    triplet=name,
                    task=task,
                    prompt=prompt,
                    dimensions=tuple(one.value for one in DIMENSIONS[task]),
                    **paths._asdict(),
                    digest=question_digest(name, task, prompt, source, digests),
                )
            )
            bar.update()
            stop.if_asked(f"at the images of {bar.n} of {len(groups)} triplets")
    return questions


def _preferences_of_people(
    answers: Answers, splits: Mapping[str, Triplets], groups: Mapping[str, _Group]
) -> list[Preference]:
    """People's answers as preferences."""
    preferences = []
    for one in answers.given:
        split, row, candidates = groups[one.triplet]
        decided = one.best is not None
        preferences.append(
            Preference(
                triplet_id=one.triplet,
                task=TASKS[splits[split].tasks[row]],
                dimension=Dimension(one.dimension),
                winner=candidates[one.best].index if decided else None,
                loser=candidates[one.worst].index if decided else None,
                annotator=one.annotator,
                answered_at=one.answered_at,
                seconds=one.seconds,
            )
        )
    return preferences


def _tell_agreement(context: StageContext, preferences: Sequence[Preference]) -> Results:
    """Writes `AGREEMENT` and announces the annotator agreement."""
    annotators = sorted({one.annotator for one in preferences} - {GOLD})
    overall, alone = overall_agreement(preferences), one_against_others(preferences)
    cells = [
        {
            "task": task.value,
            "dimension": dimension.value,
            **_finite(found),
            ONE_AGAINST_OTHERS: vars(alone[task, dimension])
            if (task, dimension) in alone
            else None,
        }
        for (task, dimension), found in agreement_by_dimension(preferences).items()
    ]
    content = {"annotators": annotators, "overall": _finite(overall), "cells": cells}
    path = context.folder / AGREEMENT
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    results: dict[str, str | int | float] = {"annotators": len(annotators)}
    if overall.triplets:
        results["alike"] = f"{100 * overall.rate:.1f} %"
        if not math.isnan(overall.alpha):
            results["alpha"] = round(overall.alpha, 2)
        announce(
            f"annotate: {len(annotators)} annotators; questions with multiple answers: "
            f"{overall.triplets}; equal pairs of answers: {results['alike']}; "
            f"Krippendorff's alpha: {results.get('alpha', 'undefined')}"
        )
    return results


def _finite(found: Agreement) -> dict[str, float | int | None]:
    """For JSON: undefined values become null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in vars(found).items()
    }


def _annotator(context: StageContext) -> Annotator:
    """The annotator made by the plug-in named in `config.annotate.by`."""
    by = context.config.annotate.by
    annotator = maker(context.config, "annotate.by")(context.config)
    if not isinstance(annotator, Annotator):
        raise ValueError(
            f"config.annotate.by is {by!r}: its make_annotator(config) gives "
            f"{type(annotator).__name__}, not an Annotator (annotation/annotator_interface.py)"
        )
    return annotator


def _ask_annotator(
    context: StageContext,
    splits: Mapping[str, Triplets],
    groups: Mapping[str, _Group],
    store: PreferenceStore,
) -> None:
    """Adds missing answers of the plug-in."""
    annotator, pictures = _annotator(context), context.output("candidates")
    answered = {old.triplet_id for old in store.preferences()}
    with (
        progress_bar("annotate", len(groups), initial=len(answered), unit="triplet") as bar,
        stop_points("annotate", alone=True) as stop,
    ):
        for name, (split, row, candidates) in groups.items():
            if name in answered:
                continue
            store.add_candidates(candidates)
            started, task = time.time(), TASKS[splits[split].tasks[row]]
            shown = [np.asarray(Image.open(pictures / one.picture)) for one in candidates]
            answers = annotator.answer(Asked(name, split, task, splits[split][row], shown))
            finished = time.time()
            store.add_preferences(
                Preference(
                    triplet_id=name,
                    task=task,
                    dimension=dimension,
                    winner=None if pair is None else candidates[pair[0]].index,
                    loser=None if pair is None else candidates[pair[1]].index,
                    annotator=annotator.name,
                    answered_at=finished,
                    seconds=(finished - started) / len(answers),
                )
                for dimension, pair in answers.items()
            )
            bar.update()
            stop.if_asked(f"at {bar.n} of {len(groups)} triplets")
