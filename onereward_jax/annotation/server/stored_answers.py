"""Reads the answers of the database in the form of `annotation.answers`, for the stages.

Those to gold questions too: `stages.people_answers` puts the gold answers in their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from onereward_jax.annotation.answers import Answer, Answers
from onereward_jax.annotation.questions import Question
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.tables import ANNOTATORS, ITEMS, JUDGEMENTS


def stored_answers(
    database: AnswerDatabase, set_name: str, questions: Sequence[Question]
) -> Answers:
    """All answers about one set of questions.

    Args:
      database: the database.
      set_name: folder of the questions, see `web_settings.sets_in`.
      questions: the questions of the run; answers to others are returned as `elsewhere`.
    """
    asked = {question.digest: question for question in questions}
    given, elsewhere = [], []
    for row in _rows(database, set_name):
        place = (Path("answer database"), row.judgement)
        question = asked.get(row.digest)
        if question is None or row.dimension not in question.dimensions:
            elsewhere.append(place)
            continue
        given.append(
            Answer(
                digest=row.digest,
                triplet=row.triplet,
                dimension=row.dimension,
                best=row.best,
                worst=row.worst,
                usable=None if row.usable is None else bool(row.usable),
                annotator=row.name,
                answered_at=row.answered_at,
                place=place,
                seconds=row.seconds,
            )
        )
    return Answers(tuple(given), tuple(elsewhere))


def answer_lines(database: AnswerDatabase, set_name: str) -> Iterator[dict[str, Any]]:
    """All answers about one set as lines of an answers file, see `annotation.questions`.

    The time spent, `seconds`, and `answered_at`, Unix time, are extra.
    """
    for row in _rows(database, set_name):
        said = (
            {"best": row.best, "worst": row.worst}
            if row.usable is None
            else {"usable": bool(row.usable)}
        )
        yield {
            "digest": row.digest,
            "triplet": row.triplet,
            "dimension": row.dimension,
            **said,
            "annotator": row.name,
            "seconds": round(row.seconds, 3),
            "answered_at": row.answered_at,
        }


def what_is_stored(database: AnswerDatabase, set_name: str) -> Iterator[str]:
    """What `answers.what_is_said` yields for the file of `answer_lines`."""
    for line in answer_lines(database, set_name):
        del line["seconds"], line["answered_at"]
        yield json.dumps(line, sort_keys=True)


def _rows(database: AnswerDatabase, set_name: str) -> Sequence[sa.Row]:
    chosen = (
        sa.select(JUDGEMENTS, ITEMS.c.digest, ITEMS.c.triplet, ANNOTATORS.c.name)
        .select_from(JUDGEMENTS)
        .join(ITEMS, ITEMS.c.item == JUDGEMENTS.c.item)
        .join(ANNOTATORS, ANNOTATORS.c.annotator == JUDGEMENTS.c.annotator)
        .where(ITEMS.c.set == set_name)
        .order_by(JUDGEMENTS.c.judgement)
    )
    with database.reading() as connection:
        return connection.execute(chosen).all()
