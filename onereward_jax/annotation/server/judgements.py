"""Saves, changes and clears answers.

A save is done when the request is answered: the transaction with the answer, the lease and the
audit trail is on disk. The key of a save, or of its undoing, makes a repeated one a
no-op, also after a later change.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import sqlalchemy as sa

from onereward_jax.annotation.questions import USABLE
from onereward_jax.annotation.server.annotators import Annotator
from onereward_jax.annotation.server.database import AnswerDatabase, record
from onereward_jax.annotation.server.leases import Leases
from onereward_jax.annotation.server.question_files import Item
from onereward_jax.annotation.server.tables import AUDIT, JUDGEMENTS, LEASES


@dataclasses.dataclass(frozen=True)
class Said:
    """An answer in shown positions, from 0.

    `best` and `worst` are both None if the pictures do not differ; `usable` is None except for a
    question about a single result.
    """

    best: int | None
    worst: int | None
    usable: bool | None


class Judgements:
    """The answers of a run's annotators."""

    def __init__(self, database: AnswerDatabase, leases: Leases) -> None:
        self._database, self._leases = database, leases

    def of_item(self, item: Item, annotator: int, order: list[int]) -> dict[str, dict[str, Any]]:
        """Dimension -> the annotator's answer, in the positions of `order`."""
        mine = (JUDGEMENTS.c.item == item.name) & (JUDGEMENTS.c.annotator == annotator)
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(JUDGEMENTS).where(mine)).all()
        places = {candidate: position for position, candidate in enumerate(order)}
        return {
            row.dimension: {"usable": bool(row.usable)}
            if row.usable is not None
            else {"best": places.get(row.best), "worst": places.get(row.worst)}
            for row in rows
        }

    def save(
        self,
        item: Item,
        dimension: str,
        who: Annotator,
        said: Said,
        *,
        seconds: float,
        key: str,
        address: str,
    ) -> int:
        """Saves an answer, in place of an earlier one; returns how many the item has of `who`.

        Raises:
          ValueError: the answer does not fit the question.
          LeaseLost: the question has gone to other annotators.
        """
        _check(item, dimension, said)
        save_key = f"{who.number} {key}"
        with self._database.writing() as connection:
            if self._is_known(connection, save_key):
                return self._finish(connection, item, who)
            self._leases.take(connection, item.name, who.number, who.name)
            order = self._order(connection, item, who)
            values = dict(
                best=None if said.best is None else order[said.best],
                worst=None if said.worst is None else order[said.worst],
                usable=said.usable,
                seconds=seconds,
                answered_at=time.time(),
            )
            mine = self._mine(item, dimension, who)
            if not connection.execute(sa.update(JUDGEMENTS).where(mine).values(values)).rowcount:
                new = dict(item=item.name, dimension=dimension, annotator=who.number)
                connection.execute(sa.insert(JUDGEMENTS).values(new | values))
            del values["answered_at"]
            record(
                *(connection, "answer", who.name),
                address=address,
                item=item.name,
                dimension=dimension,
                save_key=save_key,
                **values,
            )
            return self._finish(connection, item, who)

    def clear(self, item: Item, dimension: str, who: Annotator, *, key: str, address: str) -> int:
        """Removes an answer; returns how many the item still has of `who`. Raises LeaseLost."""
        save_key = f"{who.number} {key}"
        with self._database.writing() as connection:
            if not self._is_known(connection, save_key):
                self._leases.take(connection, item.name, who.number, who.name)
                connection.execute(sa.delete(JUDGEMENTS).where(self._mine(item, dimension, who)))
                record(
                    *(connection, "undo", who.name),
                    address=address,
                    item=item.name,
                    dimension=dimension,
                    save_key=save_key,
                )
            return self._finish(connection, item, who)

    def _is_known(self, connection: sa.Connection, save_key: str) -> bool:
        """Whether this save was done before."""
        known = sa.select(AUDIT.c.entry).where(AUDIT.c.save_key == save_key)
        return connection.execute(known).first() is not None

    def _mine(self, item: Item, dimension: str, who: Annotator) -> sa.ColumnElement[bool]:
        return (
            (JUDGEMENTS.c.item == item.name)
            & (JUDGEMENTS.c.dimension == dimension)
            & (JUDGEMENTS.c.annotator == who.number)
        )

    def _order(self, connection: sa.Connection, item: Item, who: Annotator) -> list[int]:
        mine = (LEASES.c.item == item.name) & (LEASES.c.annotator == who.number)
        return json.loads(connection.execute(sa.select(LEASES.c.order).where(mine)).scalar_one())

    def _finish(self, connection: sa.Connection, item: Item, who: Annotator) -> int:
        """Notes whether all dimensions are answered; returns how many are."""
        mine = (JUDGEMENTS.c.item == item.name) & (JUDGEMENTS.c.annotator == who.number)
        asked = JUDGEMENTS.c.dimension.in_(item.question.dimensions)
        count = sa.select(sa.func.count()).select_from(JUDGEMENTS).where(mine, asked)
        answered = connection.execute(count).scalar_one()
        leased = (LEASES.c.item == item.name) & (LEASES.c.annotator == who.number)
        finished = answered == len(item.question.dimensions)
        change = sa.update(LEASES).where(leased, LEASES.c.finished != finished)
        if connection.execute(change.values(finished=finished)).rowcount:
            self._leases.close(connection, item.name)
        return answered


def _check(item: Item, dimension: str, said: Said) -> None:
    """Raises ValueError if an answer does not fit the question."""
    question, last = item.question, len(item.question.candidates) - 1
    if dimension not in question.dimensions:
        raise ValueError(
            f"{dimension!r} is not a dimension of this question: {', '.join(question.dimensions)}"
        )
    if (said.usable is not None) != (dimension == USABLE):
        wanted = "usable" if dimension == USABLE else "best and worst"
        raise ValueError(f"give {wanted} for {dimension}")
    if (said.best is None) != (said.worst is None):
        raise ValueError("give best and worst, or null twice where the pictures do not differ")
    if said.best is not None:
        if said.best == said.worst:
            raise ValueError("best and worst are the same picture")
        if not (0 <= said.best <= last and 0 <= said.worst <= last):
            raise ValueError(f"best and worst must be from 0 to {last}")
        if dimension == USABLE:
            raise ValueError("give usable without best and worst")
