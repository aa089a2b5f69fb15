"""What people say about the editors' results: Good/Same/Bad per dimension, and usability.

The stage does not wait for answers: the report says how many questions are answered.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

from onereward_jax.annotation.agreement import agreement_of
from onereward_jax.annotation.answers import Answer
from onereward_jax.annotation.questions import OVERALL
from onereward_jax.annotation.web_settings import GOLD
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gsb import Comparison, GoodSameBad, Verdict, good_same_bad
from onereward_jax.evaluation.report import ByPeople
from onereward_jax.evaluation.usability import UsableVote, usability
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.ask_people import answers_path, ask
from onereward_jax.stages.evaluate.blind_questions import (
    QUESTIONS,
    BlindQuestion,
    blind_questions,
)
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.people_answers import read_all_answers
from onereward_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class PeopleOpinion:
    """People's answers. A triplet may have answers of multiple annotators.

    Attributes:
      comparisons: (editor, dimension) -> verdicts on its results against the base's; the dimension
        is one of the task's, or `annotation.questions.OVERALL`.
      usable: editor -> votes on its results.
      told: a message with the number of answers and annotators.
    """

    comparisons: Mapping[tuple[str, str], Sequence[Comparison]]
    usable: Mapping[str, Sequence[UsableVote]]
    told: str

    def overall(self, editor: str) -> Sequence[Comparison]:
        """The verdicts on an editor's results as a whole."""
        return self.comparisons.get((editor, OVERALL), ())

    def counted(self, seed: int) -> ByPeople | None:
        """The answers as figures; None if there are none."""
        if not self.comparisons and not self.usable:
            return None
        gsb: dict[str, dict[tuple[Task, str], GoodSameBad]] = collections.defaultdict(dict)
        for (editor, dimension), found in self.comparisons.items():
            for task, one in good_same_bad(found, seed).items():
                gsb[editor][task, dimension] = one
        usable = {editor: usability(votes) for editor, votes in self.usable.items()}
        return ByPeople(gsb, usable)


def check_people(context: StageContext) -> None:
    """Checks the fields about people before the chain starts.

    Raises:
      ValueError: `answers` or `editors` is set, but no questions are asked.
      FileNotFoundError: the answers do not exist.
    """
    config = context.config.evaluate
    asks = config.questions or config.usability
    for field in ("answers", "editors"):
        if config[field] and not asks:
            raise ValueError(
                f"config.evaluate.{field} is {config[field]!r}, but config.evaluate.questions is "
                "0: no questions are asked"
            )
    if config.answers and not answers_path(context, config.answers, QUESTIONS).exists():
        raise FileNotFoundError(
            f"config.evaluate.answers: there is neither a file nor a folder {config.answers}"
        )


def ask_people(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    editors: Mapping[str, Pictures],
) -> PeopleOpinion | None:
    """Writes missing questions and reads the answers; None if no questions are asked.

    Gold questions measure annotators, not editors: their answers give no verdicts.

    Args:
      context: context of the stage.
      triplets, rows, editors: as in `blind_questions`.

    Raises:
      ValueError: answers are invalid.
    """
    asked = blind_questions(context, triplets, rows, editors)
    if not asked:
        return None
    questions = list({one.question.digest: one.question for one in asked}.values())
    ask(context, QUESTIONS, questions)
    answers = read_all_answers(context, context.config.evaluate.answers, QUESTIONS, questions)
    if answers.elsewhere:
        announce(f"evaluate: {answers.about_elsewhere()}")
    total = sum(len(question.dimensions) for question in questions)
    told = f"{answers.answered} of {total} questions of {QUESTIONS}/ are answered"
    given = [one for one in answers.given if one.annotator != GOLD]
    return PeopleOpinion(*_opinions(asked, given), told=told + _annotators(given))


def _opinions(
    asked: Sequence[BlindQuestion], given: Sequence[Answer]
) -> tuple[dict[tuple[str, str], list[Comparison]], dict[str, list[UsableVote]]]:
    """The answers by editor: comparisons and usability."""
    of_question: dict[str, list[Answer]] = collections.defaultdict(list)
    for answer in given:
        of_question[answer.digest].append(answer)
    comparisons: dict[tuple[str, str], list[Comparison]] = collections.defaultdict(list)
    usable: dict[str, list[UsableVote]] = collections.defaultdict(list)
    for one in asked:
        triplet, task = str(one.row), one.question.task
        for answer in of_question[one.question.digest]:
            if answer.usable is not None:
                usable[one.editor].append(UsableVote(triplet, task, answer.usable))
            else:
                comparisons[one.editor, answer.dimension].append(
                    Comparison(triplet, task, _verdict(answer, one.place))
                )
    return dict(comparisons), dict(usable)


def _verdict(answer: Answer, place: int) -> Verdict:
    if answer.best is None:
        return Verdict.SAME
    return Verdict.GOOD if answer.best == place else Verdict.BAD


def _annotators(given: Sequence[Answer]) -> str:
    """Annotators and their agreement, as the end of a message."""
    names = {one.annotator for one in given}
    if not names:
        return ""
    items: dict[str, dict[str, object]] = collections.defaultdict(dict)
    for one in given:
        items[f"{one.digest} {one.dimension}"][one.annotator] = one.said
    agreed = agreement_of(items)
    text = f", by {len(names)} annotator{'s' * (len(names) > 1)}"
    if agreed.triplets:
        text += f"; {100 * agreed.rate:.0f} % of the pairs of answers to a question are equal"
        if not math.isnan(agreed.alpha):
            text += f" (Krippendorff's alpha {agreed.alpha:.2f})"
    return text
