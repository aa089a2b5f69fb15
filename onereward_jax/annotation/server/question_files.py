"""Reads the questions of a work folder, and again when their files change.

Only files that a question names inside its own folder are ever served, under names that are made
with the secret of the database: nothing that a browser sends becomes a path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa

from onereward_jax.annotation.answers import Answer, answer_files, read_answers
from onereward_jax.annotation.questions import FILE, Question
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.tables import ITEMS, JUDGEMENTS, LEASES, SERVED
from onereward_jax.annotation.web_settings import WebSettings, sets_in
from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.tasks import task_named

LOOK_SECONDS = 2.0
"""How often the files are looked at, at most."""

CHUNK = 500
"""Rows per statement."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A question as it is served.

    Attributes:
      name: its primary key.
      set: the folder it is in, see `web_settings.sets_in`.
      question: the question.
    """

    name: str
    set: str
    question: Question


@dataclasses.dataclass(frozen=True)
class _Content:
    """What the files hold at one moment."""

    state: tuple = ()
    items: dict[str, Item] = dataclasses.field(default_factory=dict)
    pictures: dict[str, Path] = dataclasses.field(default_factory=dict)
    gold: dict[tuple[str, str], Answer] = dataclasses.field(default_factory=dict)


def item_name(set_name: str, digest: str) -> str:
    """Primary key of a question."""
    return f"{set_name}.{digest}"


class QuestionFiles:
    """The questions of a work folder; safe to use from many threads."""

    def __init__(self, settings: WebSettings, database: AnswerDatabase) -> None:
        """Reads the files.

        Raises:
          ValueError: a file is damaged, or names a picture outside its folder.
        """
        self._settings, self._database = settings, database
        self._content = _Content()
        self._lock, self._looked = threading.Lock(), -LOOK_SECONDS
        self.refresh()

    def items(self) -> dict[str, Item]:
        """The questions by primary key."""
        return self._content.items

    def gold(self) -> dict[tuple[str, str], Answer]:
        """(question, dimension) -> the right answer."""
        return self._content.gold

    def picture(self, name: str) -> Path | None:
        """The file of a picture; None if there is no such picture of this run."""
        path = self._content.pictures.get(name)
        if path is None or not path.is_file():
            return None
        inside = (self._settings.workdir / one for one in sets_in(self._settings.workdir))
        real = path.resolve()  # a link may lead anywhere
        return path if any(real.is_relative_to(one.resolve()) for one in inside) else None

    def picture_name(self, set_name: str, path: str) -> str:
        """The name that a picture is served under."""
        content = f"{self._settings.run}\0{set_name}\0{path}".encode()
        return hmac.new(self._database.secret.encode(), content, hashlib.sha256).hexdigest()[:32]

    def refresh(self) -> None:
        """Reads the files again if they have changed; looks every `LOOK_SECONDS` at most."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_SECONDS:
                return
            state = tuple(_state(path) for path in self._paths())
            if state != self._content.state:
                self._content = self._read(state)
            self._looked = now

    def _paths(self) -> Iterator[Path]:
        for name in sets_in(self._settings.workdir):
            yield self._settings.workdir / name / FILE
        if self._settings.gold is not None:
            yield from answer_files(self._settings.gold)

    def _read(self, state: tuple) -> _Content:
        items, pictures, gold = {}, {}, {}
        for name in sets_in(self._settings.workdir):
            folder = self._settings.workdir / name
            found = read_questions(folder / FILE)
            for question in found:
                item = Item(item_name(name, question.digest), name, question)
                items[item.name] = item
                for path in (question.image, question.mask, *question.candidates):
                    pictures[self.picture_name(name, path)] = folder / path
            for answer in gold_answers(self._settings.gold, found):
                gold[item_name(name, answer.digest), answer.dimension] = answer
        self._store(items, {item for item, _ in gold})
        return _Content(state, items, pictures, gold)

    def _store(self, items: dict[str, Item], gold: set[str]) -> None:
        """Writes what is served to the database."""
        described, served = [], []
        for rank, one in enumerate(items.values()):
            row = dict(item=one.name, set=one.set)
            place = dict(run=self._settings.run, rank=rank, gold=one.name in gold, closed=False)
            served.append(row | place)
            described.append(
                row
                | dict(
                    digest=one.question.digest,
                    triplet=one.question.triplet,
                    task=one.question.task.value,
                    prompt=one.question.prompt,
                    dimensions=json.dumps(one.question.dimensions),
                    candidates=len(one.question.candidates),
                )
            )
        with self._database.writing() as connection:
            known = dict(connection.execute(sa.select(ITEMS.c.item, ITEMS.c.dimensions)).all())
            new = [row for row in described if row["item"] not in known]
            for row in described:
                if known.get(row["item"], row["dimensions"]) != row["dimensions"]:
                    _change_dimensions(connection, row)
            mine = SERVED.c.run == self._settings.run
            before = connection.execute(sa.select(SERVED).where(mine).order_by(SERVED.c.rank))
            if [dict(row) | {"closed": False} for row in before.mappings()] == served:
                served = []
            else:
                connection.execute(sa.delete(SERVED).where(mine))
            for table, rows in ((ITEMS, new), (SERVED, served)):
                for start in range(0, len(rows), CHUNK):
                    connection.execute(sa.insert(table), rows[start : start + CHUNK])
            self._close(connection)

    def _close(self, connection: sa.Connection) -> None:
        """Marks the questions that enough annotators have finished; `overlap` may have changed."""
        finished = sa.select(LEASES.c.item).where(LEASES.c.finished).group_by(LEASES.c.item)
        enough = finished.having(sa.func.count() >= self._settings.overlap)
        closed = SERVED.c.item.in_(enough) & ~SERVED.c.gold
        mine = sa.update(SERVED).where(SERVED.c.run == self._settings.run)
        connection.execute(mine.values(closed=closed))


def read_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order; [] if it does not exist.

    Raises:
      ValueError: a line is not a question, or names a picture outside the file's folder.
    """
    lines: dict[str, dict] = {}
    dimensions: dict[str, list[str]] = {}
    if not path.exists():
        return []
    for number, line in json_lines(path):
        try:
            fields = json_object(line)
            digest, dimension = fields["digest"], fields["dimension"]
            pictures = (fields["image"], fields["mask"], *fields["candidates"])
            if digest not in lines:
                _require_inside(path.parent, pictures)
            task_named(fields["task"], fields["prompt"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number} is not a question: {error}") from error
        lines.setdefault(digest, fields)
        of_question = dimensions.setdefault(digest, [])
        if dimension not in of_question:
            of_question.append(dimension)
    return [
        Question(
            triplet=fields["triplet"],
            task=task_named(fields["task"], fields["prompt"]),
            prompt=fields["prompt"],
            dimensions=tuple(dimensions[digest]),
            image=fields["image"],
            mask=fields["mask"],
            candidates=tuple(fields["candidates"]),
            digest=digest,
        )
        for digest, fields in lines.items()
    ]


def gold_answers(gold: Path | None, questions: list[Question]) -> tuple[Answer, ...]:
    """The gold answers to these questions. Raises ValueError as `read_answers`."""
    return read_answers(gold, questions).given if gold is not None else ()


def _change_dimensions(connection: sa.Connection, row: dict) -> None:
    """Stores other dimensions of a question; who has not answered one of them is asked again."""
    described = sa.update(ITEMS).where(ITEMS.c.item == row["item"])
    connection.execute(described.values(dimensions=row["dimensions"]))
    asked = json.loads(row["dimensions"])
    answered = sa.select(sa.func.count()).where(
        JUDGEMENTS.c.item == LEASES.c.item,
        JUDGEMENTS.c.annotator == LEASES.c.annotator,
        JUDGEMENTS.c.dimension.in_(asked),
    )
    begun = sa.update(LEASES).where(LEASES.c.item == row["item"])
    connection.execute(begun.values(finished=answered.scalar_subquery() == len(asked)))


def _require_inside(folder: Path, pictures: Iterable[str]) -> None:
    for picture in pictures:
        if os.path.isabs(picture) or os.path.normpath(picture).startswith(".."):
            raise ValueError(f"{picture!r} is outside {folder}")


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
