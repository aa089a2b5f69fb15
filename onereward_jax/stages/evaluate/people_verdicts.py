"""Blinded questions to people about base and policy, and Good/Same/Bad from their answers.

They are in the work folder: questions-ab/questions.jsonl and the images it names, in the format of
`annotation.questions`. The candidates are the results of both editors, in random order per pair of
images; neither file names nor lines reveal the order. There is one question per triplet, about the
overall image, as in the paper's Good/Same/Bad; `null` for both is Same. The stage does not wait:
the report says how many are answered.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from onereward_jax.annotation.agreement import agreement_of
from onereward_jax.annotation.answers import Answer, read_answers
from onereward_jax.annotation.picture_digests import pixel_digest, question_digest, source_digest
from onereward_jax.annotation.questions import FILE, OVERALL, Question
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.rng import generator
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gsb import Comparison, Verdict
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.ask_people import answers_path, ask
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.question_pictures import question_paths, save_question_pictures
from onereward_jax.tasks import TASKS

QUESTIONS = "questions-ab"
"""Folder in the work folder. People edit it: the stage only adds to it."""


@dataclasses.dataclass(frozen=True)
class PeopleOpinion:
    """People's verdicts on the policy's results against the base's.

    Attributes:
      comparisons: one per answer; a triplet may have answers of multiple annotators.
      told: a message with the number of answers and annotators.
    """

    comparisons: tuple[Comparison, ...]
    told: str


@dataclasses.dataclass(frozen=True)
class _Blind:
    """A question and its secret: the index of the policy's result."""

    row: int
    question: Question
    policy: int


def check_people(context: StageContext) -> None:
    """Checks the fields about people before the chain starts.

    Raises:
      ValueError: `answers` is set, but no questions are asked.
      FileNotFoundError: the answers do not exist.
    """
    config = context.config.evaluate
    if config.answers and not config.questions:
        raise ValueError(
            f"config.evaluate.answers is {config.answers!r}, but config.evaluate.questions is 0: "
            "no questions are asked"
        )
    if config.answers and not _answers(context).exists():
        raise FileNotFoundError(
            f"config.evaluate.answers: there is neither a file nor a folder {config.answers}"
        )


def _answers(context: StageContext) -> Path:
    return answers_path(context, context.config.evaluate.answers, QUESTIONS)


def ask_people(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    base: Pictures,
    policy: Pictures,
) -> PeopleOpinion | None:
    """Writes missing questions and reads the answers; None if no questions are asked.

    Args:
      context: context of the stage.
      triplets, rows: the compared triplets; questions are about the first
        `config.evaluate.questions` of each task.
      base, policy: images of both.

    Raises:
      ValueError: answers are invalid.
    """
    asked = [
        _blind(context, triplets, row, base, policy)
        for row in _first_of_each_task(triplets, rows, context.config.evaluate.questions)
    ]
    if not asked:
        return None
    questions = [one.question for one in asked]
    ask(context, QUESTIONS, questions)
    answers = read_answers(_answers(context), questions)
    if answers.elsewhere:
        announce(f"evaluate: {answers.about_elsewhere()}")
    of_triplet = {one.question.triplet: one for one in asked}
    comparisons = tuple(
        Comparison(str(blind.row), blind.question.task, _verdict(answer, blind))
        for answer in answers.given
        for blind in [of_triplet[answer.triplet]]
    )
    told = f"{answers.answered} of {len(asked)} questions of {QUESTIONS}/{FILE} are answered"
    return PeopleOpinion(comparisons, told + _annotators(answers.given))


def _first_of_each_task(triplets: Triplets, rows: Sequence[int], count: int) -> list[int]:
    return [
        row
        for task in range(len(TASKS))
        for row in [row for row in rows if triplets.tasks[row] == task][:count]
    ]


def _blind(
    context: StageContext, triplets: Triplets, row: int, base: Pictures, policy: Pictures
) -> _Blind:
    """The question about a triplet; writes missing images."""
    example = triplets[row]
    name, task = f"test/{example['id']}", TASKS[triplets.tasks[row]]
    source = source_digest(example["image"], example["mask"])
    results = [(pixel_digest(made[row]), made.path(row)) for made in (base, policy)]
    # The order depends on the images: knowing it for one policy reveals nothing about the next.
    rng = generator(context.config.seed, "a/b", name, *(digest for digest, _ in results))
    of_policy = int(rng.integers(2))
    shown, files = zip(*(results if of_policy else results[::-1]))
    paths = question_paths(name, source, shown)
    save_question_pictures(
        context.workdir / QUESTIONS,
        paths,
        source,
        lambda: example,
        files,
    )
    question = Question(
        triplet=name,
        task=task,
        prompt=example["prompt"],
        dimensions=(OVERALL,),
        **paths._asdict(),
        digest=question_digest(name, task, example["prompt"], source, shown),
    )
    return _Blind(row, question, of_policy)


def _verdict(answer: Answer, blind: _Blind) -> Verdict:
    if answer.best is None:
        return Verdict.SAME
    return Verdict.GOOD if answer.best == blind.policy else Verdict.BAD


def _annotators(given: Sequence[Answer]) -> str:
    """Annotators and their agreement, as the end of a message."""
    names = {one.annotator for one in given}
    if not names:
        return ""
    items: dict[str, dict[str, object]] = {}
    for one in given:
        items.setdefault(one.triplet, {})[one.annotator] = one.best
    agreed = agreement_of(items)
    text = f", by {len(names)} annotator{'s' * (len(names) > 1)}"
    if agreed.triplets:
        text += f"; {100 * agreed.rate:.0f} % of the pairs of answers to a question are equal"
        if not math.isnan(agreed.fleiss_kappa):
            text += f" (kappa {agreed.fleiss_kappa:.2f})"
    return text
