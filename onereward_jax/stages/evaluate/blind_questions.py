"""Blinded questions to people about the results of editors.

They are in the work folder: questions-ab/questions.jsonl and the images it names, in the format of
`annotation.questions`. A comparison has two candidates, an editor's result and the base's, in
random order per pair of images, and asks for the dimensions of the task and the overall image, as
in the paper's Good/Same/Bad; `null` for both is Same. A usability question has a single result.
Neither file names, times nor lines reveal whose result it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onereward_jax.annotation.picture_digests import pixel_digest, question_digest, source_digest
from onereward_jax.annotation.questions import OVERALL, USABLE, Question
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.rng import generator
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.question_pictures import question_paths, save_question_pictures
from onereward_jax.tasks import DIMENSIONS, TASKS, Task

QUESTIONS = "questions-ab"
"""Folder in the work folder. People edit it: the stage only adds to it."""

BASE = "base"
"""The editor that the others are compared with."""


@dataclasses.dataclass(frozen=True)
class BlindQuestion:
    """A question and its secret.

    Attributes:
      question: what people see.
      row: the triplet.
      editor: whose result is asked about; for a comparison, against the base.
      place: index of this editor's candidate.
    """

    question: Question
    row: int
    editor: str
    place: int


def blind_questions(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    editors: Mapping[str, Pictures],
) -> list[BlindQuestion]:
    """The questions of `config.evaluate.questions` and `.usability`; writes missing images.

    Each is about the first triplets of a task. Both kinds are in random order: the results of a
    triplet do not follow each other, and no editor is judged by more tired people. Results of two
    editors that are equal pixel for pixel share one usability question.

    Args:
      context: context of the stage.
      triplets, rows: the compared triplets.
      editors: images by name, "base" among them; some triplets may be missing in all but the base.
    """
    config = context.config.evaluate
    asked = [
        _comparison(context, triplets, row, name, editors)
        for name, made in editors.items()
        if name != BASE
        for row in _first_of_each_task(triplets, rows, config.questions)
        if row in made.names
    ]
    single = [
        _single(context, triplets, row, name, made)
        for name, made in editors.items()
        for row in _first_of_each_task(triplets, rows, config.usability)
        if row in made.names
    ]
    for questions, kind in ((asked, "compared"), (single, "usable")):
        seeds = (context.config.seed, kind)
        questions.sort(key=lambda one: generator(*seeds, one.question.digest).random())
    return asked + single


def _first_of_each_task(triplets: Triplets, rows: Sequence[int], count: int) -> Iterator[int]:
    for task in range(len(TASKS)):
        yield from [row for row in rows if triplets.tasks[row] == task][:count]


def _comparison(
    context: StageContext,
    triplets: Triplets,
    row: int,
    name: str,
    editors: Mapping[str, Pictures],
) -> BlindQuestion:
    """The question whether an editor's result is better than the base's."""
    results = [(pixel_digest(made[row]), made.path(row)) for made in (editors[BASE], editors[name])]
    # The order depends on the images: knowing it for one editor reveals nothing about the next.
    digests = (digest for digest, _ in results)
    rng = generator(context.config.seed, "a/b", f"test/{triplets.column('id')[row]}", *digests)
    place = int(rng.integers(2))
    shown = results if place else results[::-1]
    task = TASKS[triplets.tasks[row]]
    dimensions = (*(one.value for one in DIMENSIONS[task]), OVERALL)
    question = _question(context, triplets, row, task, dimensions, shown)
    return BlindQuestion(question, row, name, place)


def _single(
    context: StageContext, triplets: Triplets, row: int, name: str, made: Pictures
) -> BlindQuestion:
    """The question whether an editor's result is usable."""
    shown = [(pixel_digest(made[row]), made.path(row))]
    task = TASKS[triplets.tasks[row]]
    return BlindQuestion(
        _question(context, triplets, row, task, (USABLE,), shown), row, name, place=0
    )


def _question(
    context: StageContext,
    triplets: Triplets,
    row: int,
    task: Task,
    dimensions: tuple[str, ...],
    shown: Sequence[tuple[str, Path]],
) -> Question:
    """A question about images, each with its digest; writes missing ones."""
    example = triplets[row]
    triplet = f"test/{example['id']}"
    source = source_digest(example["image"], example["mask"])
    digests, files = zip(*shown)
    paths = question_paths(triplet, source, digests)
    folder = context.workdir / QUESTIONS
    save_question_pictures(folder, paths, source, lambda: example, files, blinded=True)
    return Question(
        triplet=triplet,
        task=task,
        prompt=example["prompt"],
        dimensions=dimensions,
        **paths._asdict(),
        digest=question_digest(triplet, task, example["prompt"], source, digests),
    )
