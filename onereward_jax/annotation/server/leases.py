"""Leases: who judges which question next.

A question has `overlap` places. A lease takes one while it has not expired; an annotator who has
answered all dimensions keeps it for good. All of this happens in `AnswerDatabase.writing`, where
one transaction runs at a time. Gold questions have a place for everyone.
"""

from __future__ import annotations

import hashlib
import json
import random
import time

import sqlalchemy as sa

from onereward_jax.annotation.server.database import AnswerDatabase, record
from onereward_jax.annotation.server.question_files import Item
from onereward_jax.annotation.server.tables import ITEMS, LEASES, SERVED
from onereward_jax.annotation.web_settings import WebSettings


class LeaseLost(Exception):
    """The lease has expired and other annotators have taken all places."""


class Leases:
    """Leases of the questions of a run."""

    def __init__(self, settings: WebSettings, database: AnswerDatabase) -> None:
        self._settings, self._database = settings, database

    def next(self, set_name: str, annotator: int, who: str, after: str | None) -> str | None:
        """Leases the next question of a set; renews the lease that the annotator holds.

        A question that is begun comes first, so that a reload or a second tab shows the same one.
        Of those that were begun after `after`, if it is given: a page may ask ahead, twice for the
        same, and what was left for later comes last.

        Returns:
          The question; None if nothing is left for this annotator.
        """
        with self._database.writing() as connection:
            begun = self._unfinished(connection, set_name, annotator)
            chosen = next(iter(self._later(connection, begun, after, annotator)), None)
            if chosen is None:
                chosen = self._new(connection, set_name, annotator)
            if chosen is None:  # what was left for later
                later = begun[begun.index(after) + 1 :] if after in begun else begun
                chosen = next(iter([*later, *begun]), None)
            if chosen is not None:
                self._lease(connection, chosen, annotator, who)
        return chosen

    def renew(self, item: str, annotator: int, who: str) -> float:
        """Renews a lease; returns its new end, Unix time in seconds. Raises LeaseLost."""
        with self._database.writing() as connection:
            return self.take(connection, item, annotator, who)

    def take(self, connection: sa.Connection, item: str, annotator: int, who: str) -> float:
        """The same, in a transaction that writes."""
        row = self._row(connection, item, annotator)
        now = time.time()
        if row is None:
            raise LeaseLost("this question was not given to you")
        if not row.finished and row.expires_at < now and not self._free(connection, item):
            raise LeaseLost("your time for this question is over, and others have it now")
        return self._lease(connection, item, annotator, who)

    def close(self, connection: sa.Connection, item: str) -> None:
        """Marks a question, or no longer, after an annotator has finished it or undone that."""
        finished = sa.select(sa.func.count()).select_from(LEASES)
        finished = finished.where(LEASES.c.item == item, LEASES.c.finished).scalar_subquery()
        mine = SERVED.c.run == self._settings.run  # other runs have another overlap
        enough = mine & ~SERVED.c.gold & (finished >= self._settings.overlap)
        served = sa.update(SERVED).where(SERVED.c.item == item)
        connection.execute(served.values(closed=enough))

    def order(self, item: Item, annotator: int) -> list[int] | None:
        """The candidate at each shown position; None if the annotator has not begun the item."""
        with self._database.reading() as connection:
            row = self._row(connection, item.name, annotator)
        return None if row is None else json.loads(row.order)

    def left(self, set_name: str, annotator: int) -> int:
        """Number of questions that this annotator can still begin or finish."""
        with self._database.reading() as connection:
            new = self._open(set_name, annotator).with_only_columns(sa.func.count())
            left = connection.execute(new.order_by(None)).scalar()
            return left + len(self._unfinished(connection, set_name, annotator))

    def _served(self, set_name: str) -> sa.Select:
        return sa.select(SERVED.c.item).where(
            SERVED.c.run == self._settings.run, SERVED.c.set == set_name
        )

    def _taken(self, item: sa.ColumnElement | str) -> sa.ScalarSelect:
        """Number of places of an item that are taken."""
        holds = LEASES.c.finished | (LEASES.c.expires_at >= time.time())
        count = sa.select(sa.func.count()).select_from(LEASES).where(LEASES.c.item == item, holds)
        return count.scalar_subquery()

    def _open(self, set_name: str, annotator: int) -> sa.Select:
        """Questions that the annotator has not begun and that have a free place, in order."""
        mine = sa.exists().where(LEASES.c.item == SERVED.c.item, LEASES.c.annotator == annotator)
        places = self._taken(SERVED.c.item) < self._settings.overlap
        chosen = self._served(set_name).where(~SERVED.c.closed, ~mine, SERVED.c.gold | places)
        return chosen.order_by(SERVED.c.rank)

    def _free(self, connection: sa.Connection, item: str) -> bool:
        gold = self._gold(connection, item)
        return (
            gold
            or connection.execute(sa.select(self._taken(item) < self._settings.overlap)).scalar()
        )

    def _gold(self, connection: sa.Connection, item: str) -> bool:
        mine = (SERVED.c.run == self._settings.run) & (SERVED.c.item == item)
        return bool(connection.execute(sa.select(SERVED.c.gold).where(mine)).scalar())

    def _unfinished(self, connection: sa.Connection, set_name: str, annotator: int) -> list[str]:
        """Questions begun and not finished that the annotator may go on with, oldest first."""
        mine = sa.select(LEASES.c.item, LEASES.c.expires_at).join(
            SERVED, (SERVED.c.item == LEASES.c.item) & (SERVED.c.run == self._settings.run)
        )
        mine = mine.where(
            LEASES.c.annotator == annotator, SERVED.c.set == set_name, ~LEASES.c.finished
        )
        rows = connection.execute(mine.order_by(LEASES.c.begun_at, LEASES.c.item)).all()
        now = time.time()
        return [r.item for r in rows if r.expires_at >= now or self._free(connection, r.item)]

    def _later(
        self, connection: sa.Connection, items: list[str], after: str | None, annotator: int
    ) -> list[str]:
        """Those of an annotator's items that were begun later than `after`; None: all."""
        if after is None or (row := self._row(connection, after, annotator)) is None:
            return items if after is None else []
        mine = sa.select(LEASES.c.item).where(
            LEASES.c.annotator == annotator, LEASES.c.begun_at > row.begun_at
        )
        later = set(connection.execute(mine).scalars())
        return [item for item in items if item in later]

    def _new(self, connection: sa.Connection, set_name: str, annotator: int) -> str | None:
        begun = sa.select(sa.func.count()).select_from(LEASES)
        begun = begun.join(SERVED, SERVED.c.item == LEASES.c.item)
        begun = begun.where(
            LEASES.c.annotator == annotator,
            SERVED.c.set == set_name,
            SERVED.c.run == self._settings.run,
        )
        count = connection.execute(begun).scalar()
        turn = count % self._settings.gold_every == self._settings.gold_every - 1
        for wants_gold in (turn, not turn):
            new = self._open(set_name, annotator).where(SERVED.c.gold == wants_gold)
            if wants_gold:  # in another order for everyone
                names = connection.execute(new).scalars().all()
                chosen = min(names, key=lambda name: _draw(name, annotator), default=None)
            else:
                chosen = connection.execute(new.limit(1)).scalar()
            if chosen is not None:
                return chosen
        return None

    def _row(self, connection: sa.Connection, item: str, annotator: int) -> sa.Row | None:
        mine = (LEASES.c.item == item) & (LEASES.c.annotator == annotator)
        return connection.execute(sa.select(LEASES).where(mine)).one_or_none()

    def _lease(self, connection: sa.Connection, item: str, annotator: int, who: str) -> float:
        """Writes or renews a lease."""
        now = time.time()
        end = now + 60.0 * self._settings.lease_minutes
        mine = (LEASES.c.item == item) & (LEASES.c.annotator == annotator)
        renewed = connection.execute(sa.update(LEASES).where(mine).values(expires_at=end))
        if not renewed.rowcount:
            of_item = sa.select(ITEMS.c.candidates).where(ITEMS.c.item == item)
            order = list(range(connection.execute(of_item).scalar_one()))
            random.SystemRandom().shuffle(order)
            new = dict(
                item=item,
                annotator=annotator,
                order=json.dumps(order),
                begun_at=now,
                expires_at=end,
                finished=False,
            )
            connection.execute(sa.insert(LEASES).values(new))
            record(connection, "lease", who, item=item, order=order)
        return end


def _draw(item: str, annotator: int) -> bytes:
    return hashlib.sha256(f"{annotator} {item}".encode()).digest()
