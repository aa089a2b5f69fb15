"""All answers of people to a set of questions: from files, and from the annotation server.

The stages `annotate` and `evaluate` read both. The database is that of `config.annotate.web`; it
needs the extra `people` only once it exists.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.answers import Answer, Answers, read_answers
from onereward_jax.annotation.questions import Question
from onereward_jax.annotation.web_settings import (
    GOLD,
    WebSettings,
    database_url,
    has_database,
)
from onereward_jax.chain.stage import StageContext
from onereward_jax.stages.ask_people import answers_path
from onereward_jax.storage import is_bucket, local_path


def read_all_answers(
    context: StageContext, named: str, folder: str, questions: Sequence[Question]
) -> Answers:
    """People's answers in files and in the answer database.

    Where `config.annotate.web.gold` has the answer to a question in a dimension, it is the only
    one, given by `GOLD`: what annotators say there only tells how far they agree with it.

    Args:
      context: context of the stage.
      named: file or folder of answers set in the config; "": the file of the questions.
      folder: folder of the questions in the work folder.
      questions: the questions of this run.

    Raises:
      ValueError: answers are invalid, a file and the database contradict each other, or a file has
        answers of an annotator called `GOLD`.
      ModuleNotFoundError: there is a database, but the extra `people` is not installed.
    """
    web = _web(context.config)
    files = read_answers(answers_path(context, named, folder), questions)
    _refuse_gold(files.given)
    stored = _stored(web, context.workdir, folder, questions)
    given = {_key(one): one for one in files.given}
    for one in stored.given:
        other = given.setdefault(_key(one), one)
        if other.said != one.said:
            path, line = other.place
            raise ValueError(
                f"{path}, line {line}: {one.annotator!r} gave a different answer on the web page: "
                "remove the line"
            )
    if gold := web.get("gold", ""):
        known = read_answers(local_path(gold), questions).given
        right = {(one.digest, one.dimension) for one in known}
        given = {key: one for key, one in given.items() if (one.digest, one.dimension) not in right}
        given |= {_key(one): one for one in (dataclasses.replace(g, annotator=GOLD) for g in known)}
    return Answers(tuple(given.values()), (*files.elsewhere, *stored.elsewhere))


def answered_by(answers: Answers, annotators: int) -> int:
    """Number of questions with a gold answer or answers of at least so many annotators."""
    names: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for one in answers.given:
        names[one.digest, one.dimension].add(one.annotator)
    return sum(GOLD in who or len(who) >= annotators for who in names.values())


def web_settings(config: FrozenConfigDict, workdir: Path, run: str) -> WebSettings:
    """The settings of the annotation server of a run.

    Args:
      config: the full config.
      workdir: the work folder on this host.
      run: the work folder as its user names it.

    Raises:
      ValueError: the database cannot be where the config says, or the work folder is in a bucket
        and the config names none.
      FileNotFoundError: the gold answers or the guidelines do not exist.
    """
    web = config.annotate.web
    if is_bucket(run):
        require_database(config, run)
    gold, guidelines = (local_path(web[name]) if web[name] else None for name in _PATHS)
    for name, path in zip(_PATHS, (gold, guidelines)):
        if path is not None and not path.exists():
            raise FileNotFoundError(
                f"config.annotate.web.{name}: there is neither a file nor a folder {path}"
            )
    return WebSettings(
        workdir=workdir,
        run=run,
        database=database_url(web.database, workdir),
        gold=gold,
        guidelines=guidelines,
        **{name: web[name] for name in _PLAIN},
    )


def require_database(config: FrozenConfigDict, place: str) -> None:
    """Raises ValueError unless the config names a database, for a work folder in a bucket."""
    if not config.annotate.web.database:
        raise ValueError(
            f"config.annotate.web.database is empty, but the work folder {place} is in a bucket, "
            "where no database can be: name a local file or the URL of a PostgreSQL server"
        )


_PATHS = ("gold", "guidelines")
_PLAIN = ("host", "port", "url", "overlap", "lease_minutes", "gold_every")


def _refuse_gold(answers: Sequence[Answer]) -> None:
    for one in answers:
        if one.annotator == GOLD:
            path, line = one.place
            raise ValueError(
                f"{path}, line {line}: the annotator {GOLD!r} is the one of the gold answers: name "
                "another, or move the answers to config.annotate.web.gold"
            )


def _web(config: FrozenConfigDict) -> FrozenConfigDict:
    """The section `annotate.web`; empty for the config of a stage's own that has none."""
    return config.get("annotate", {}).get("web", FrozenConfigDict())


def _stored(
    web: FrozenConfigDict, workdir: Path, folder: str, questions: Sequence[Question]
) -> Answers:
    named = web.get("database", "")
    if not has_database(named, workdir):
        return Answers((), ())
    from onereward_jax.annotation.server import AnswerDatabase, stored_answers

    with contextlib.closing(AnswerDatabase(database_url(named, workdir))) as database:
        return stored_answers(database, folder, questions)


def _key(one: Answer) -> tuple[str, str, str]:
    return one.annotator, one.digest, one.dimension
