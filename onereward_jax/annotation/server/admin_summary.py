"""What the admin page shows: progress, throughput, agreement, and how each person answers.

Everything is computed from the current answers; those that were changed are in the audit trail.
"""

from __future__ import annotations

import collections
import functools
import json
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from onereward_jax.annotation.agreement import agreement_of
from onereward_jax.annotation.answers import Answer
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.tables import ANNOTATORS, ITEMS, JUDGEMENTS, LEASES, SERVED
from onereward_jax.annotation.web_settings import WebSettings, set_title, sets_in

HOUR = 3600


class _Row(NamedTuple):
    """An answer with its question and the order of the pictures that its annotator saw."""

    item: str
    set: str
    task: str
    dimension: str
    annotator: int
    best: int | None
    worst: int | None
    usable: bool | None
    seconds: float
    answered_at: float
    order: tuple[int, ...]

    @property
    def said(self) -> tuple[int | None, int | None, bool | None]:
        """What was answered."""
        return self.best, self.worst, self.usable

    @property
    def is_none(self) -> bool:
        """Whether the answer is that the pictures do not differ."""
        return self.usable is None and self.best is None


def summary(
    settings: WebSettings,
    database: AnswerDatabase,
    gold: Mapping[tuple[str, str], Answer],
) -> dict[str, Any]:
    """Everything on the admin page, about the questions that are served now.

    Args:
      settings, database: of the server.
      gold: (question, dimension) -> right answer.
    """
    with database.reading() as connection:
        rows = list(_answers(connection, settings.run))
        people = connection.execute(sa.select(ANNOTATORS).order_by(ANNOTATORS.c.name)).all()
        sets = {name: _progress(connection, settings, name) for name in sets_in(settings.workdir)}
    names = {one.annotator: one.name for one in people}
    by_annotator: dict[int, list[_Row]] = collections.defaultdict(list)
    cells: dict[tuple[str, str, str], list[_Row]] = collections.defaultdict(list)
    for row in rows:
        by_annotator[row.annotator].append(row)
        cells[row.set, row.task, row.dimension].append(row)
    for name, found in sets.items():
        found["answers"] = sum(row.set == name for row in rows)
    return {
        "sets": sets,
        "throughput": _throughput(rows, names),
        "annotators": [
            {
                "name": one.name,
                "admin": bool(one.admin),
                "revoked": one.revoked_at is not None,
                "last_seen": one.last_seen,
                **_of_person(by_annotator[one.annotator], gold),
            }
            for one in people
        ],
        "dimensions": [
            {"set": key[0], "task": key[1], "dimension": key[2], **_of_cell(found, gold)}
            for key, found in sorted(cells.items())
        ],
    }


def _answers(connection: sa.Connection, run: str) -> Iterable[_Row]:
    chosen = (
        sa.select(JUDGEMENTS, ITEMS.c.set, ITEMS.c.task, LEASES.c.order)
        .select_from(JUDGEMENTS)
        .join(ITEMS, ITEMS.c.item == JUDGEMENTS.c.item)
        .join(SERVED, (SERVED.c.item == JUDGEMENTS.c.item) & (SERVED.c.run == run))
        .join(
            LEASES,
            (LEASES.c.item == JUDGEMENTS.c.item) & (LEASES.c.annotator == JUDGEMENTS.c.annotator),
        )
    )
    for row in connection.execute(chosen):
        yield _Row(
            *(row.item, row.set, row.task, row.dimension, row.annotator, row.best, row.worst),
            usable=None if row.usable is None else bool(row.usable),
            seconds=row.seconds,
            answered_at=row.answered_at,
            order=_order(row.order),
        )


@functools.cache
def _order(text: str) -> tuple[int, ...]:
    """A stored order; there are few different ones."""
    return tuple(json.loads(text))


def _progress(connection: sa.Connection, settings: WebSettings, name: str) -> dict[str, Any]:
    """Number of questions of a set, and how many have all the annotators that they need."""
    of_set = (SERVED.c.run == settings.run) & (SERVED.c.set == name)
    finished = (
        sa.select(sa.func.count())
        .select_from(LEASES)
        .where(LEASES.c.item == SERVED.c.item, LEASES.c.finished)
        .scalar_subquery()
    )
    total = connection.execute(sa.select(sa.func.count()).where(of_set)).scalar_one()
    enough = sa.case((SERVED.c.gold, 1), else_=settings.overlap)
    full = sa.select(sa.func.count()).where(of_set, finished >= enough)
    return {
        "title": set_title(name),
        "total": total,
        "finished": connection.execute(full).scalar_one(),
        "overlap": settings.overlap,
    }


def _throughput(rows: Sequence[_Row], names: Mapping[int, str]) -> list[dict[str, Any]]:
    counts = collections.Counter(
        (int(row.answered_at // HOUR) * HOUR, names[row.annotator]) for row in rows
    )
    return [
        {"hour": hour, "name": name, "answers": count}
        for (hour, name), count in sorted(counts.items())
    ]


def _of_person(rows: Sequence[_Row], gold: Mapping[tuple[str, str], Answer]) -> dict[str, Any]:
    """Statistics of one annotator's answers."""
    return {
        "answers": len(rows),
        "items": len({row.item for row in rows}),
        "median_seconds": statistics.median(row.seconds for row in rows) if rows else None,
        "share_none": _share_none(rows),
        "position_bias": _position_bias(rows),
        "gold": _against_gold(rows, gold),
    }


def _of_cell(rows: Sequence[_Row], gold: Mapping[tuple[str, str], Answer]) -> dict[str, Any]:
    """Statistics of the answers to one set of questions, in one task and dimension."""
    found = _against_gold(rows, gold)
    return {
        "answers": len(rows),
        "alpha": alpha(rows),
        "share_none": _share_none(rows),
        "gold_right": found["right"],
        "gold_asked": found["asked"],
    }


def alpha(rows: Iterable[_Row]) -> float | None:
    """Krippendorff's alpha of the answers; None if undefined."""
    items: dict[str, dict[Hashable, Hashable]] = collections.defaultdict(dict)
    for row in rows:
        items[row.item][row.annotator] = row.said
    found = agreement_of(items).alpha
    return None if math.isnan(found) else found


def _share_none(rows: Sequence[_Row]) -> float | None:
    compared = [row for row in rows if row.usable is None]
    return sum(row.is_none for row in compared) / len(compared) if compared else None


def _against_gold(rows: Iterable[_Row], gold: Mapping[tuple[str, str], Answer]) -> dict[str, int]:
    asked = [
        (row.said, gold[row.item, row.dimension].said)
        for row in rows
        if (row.item, row.dimension) in gold
    ]
    return {"right": sum(said == right for said, right in asked), "asked": len(asked)}


def _position_bias(rows: Iterable[_Row]) -> dict[str, list[float]]:
    """How often the best picture was at each shown position.

    Of the questions with the number of pictures that the annotator was asked about most often:
    without a bias all shares are equal, up to chance.
    """
    places: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for row in rows:
        if row.best is not None:
            places[len(row.order)][row.order.index(row.best)] += 1
    if not places:
        return {"first_best": [], "counts": []}
    many, counts = max(places.items(), key=lambda one: (one[1].total(), one[0]))
    listed = [counts[position] for position in range(many)]
    return {"first_best": [count / sum(listed) for count in listed], "counts": listed}
