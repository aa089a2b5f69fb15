"""Annotators, their tokens and their logins.

A token is shown once, when it is made. The database keeps its SHA-256, which is enough for a random
token of 256 bits; comparisons take constant time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
import time

import sqlalchemy as sa

from onereward_jax.annotation.server.database import AnswerDatabase, record
from onereward_jax.annotation.server.tables import ANNOTATORS, LEASES, SESSIONS
from onereward_jax.annotation.web_settings import GOLD

SESSION_SECONDS = 30 * 86400.0
"""How long a login lasts."""

SEEN_SECONDS = 60.0
"""Resolution of `Annotator.last_seen`: not every request writes."""


@dataclasses.dataclass(frozen=True)
class Annotator:
    """An annotator.

    Attributes:
      number: primary key.
      name: name in answers.
      admin: whether the admin page is open to them.
      revoked: whether the token no longer counts.
      last_seen: Unix time in seconds, None before the first login.
    """

    number: int
    name: str
    admin: bool
    revoked: bool
    last_seen: float | None


@dataclasses.dataclass(frozen=True)
class Session:
    """A login: its number, its annotator and the token that its writes must carry."""

    number: int
    annotator: Annotator
    csrf: str


def make_token(database: AnswerDatabase, name: str, *, admin: bool = False) -> str:
    """Makes a token for a new or an existing annotator, whose former token and logins end.

    Args:
      database: the database.
      name: name of the annotator, from 1 to 200 characters.
      admin: whether they may see the admin page.

    Raises:
      ValueError: the name is empty or too long, has control characters, or is `GOLD`.
    """
    name = name.strip()
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise ValueError("--name must have 1 to 200 printable characters")
    if name == GOLD:
        raise ValueError(f"--name={GOLD} is the name of the gold answers: choose another")
    secret = secrets.token_urlsafe(32)
    values = {"token_hash": _digest(secret), "admin": admin, "revoked_at": None}
    with database.writing() as connection:
        of_name = sa.select(ANNOTATORS.c.annotator).where(ANNOTATORS.c.name == name)
        number = connection.execute(of_name).scalar()
        if number is None:
            new = sa.insert(ANNOTATORS).values(name=name, created_at=time.time(), **values)
            (number,) = connection.execute(new).inserted_primary_key
        else:
            _end_sessions(connection, number)
            known = ANNOTATORS.c.annotator == number
            connection.execute(sa.update(ANNOTATORS).where(known).values(values))
        record(connection, "token", name, admin=admin)
    return f"{number}-{secret}"


def revoke(database: AnswerDatabase, name: str) -> None:
    """Ends an annotator's token, logins and unfinished leases; their answers stay.

    Raises:
      ValueError: there is no such annotator.
    """
    with database.writing() as connection:
        of_name = sa.select(ANNOTATORS.c.annotator).where(ANNOTATORS.c.name == name)
        number = connection.execute(of_name).scalar()
        if number is None:
            raise ValueError(f"--name: there is no annotator {name!r}")
        _end_sessions(connection, number)
        known = ANNOTATORS.c.annotator == number
        connection.execute(sa.update(ANNOTATORS).where(known).values(revoked_at=time.time()))
        held = (LEASES.c.annotator == number) & ~LEASES.c.finished
        connection.execute(sa.update(LEASES).where(held).values(expires_at=0.0))
        record(connection, "revoke", name)


def annotators(database: AnswerDatabase) -> list[Annotator]:
    """All annotators, by name."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(ANNOTATORS).order_by(ANNOTATORS.c.name)).all()
    return [_annotator(row) for row in rows]


def log_in(database: AnswerDatabase, token: str, address: str) -> str | None:
    """The cookie of a new session; None, and a line in the audit trail, if the token is wrong."""
    number, _, secret = token.partition("-")
    with database.writing() as connection:
        row = None
        if number.isascii() and number.isdigit() and len(number) < 10:
            known = ANNOTATORS.c.annotator == int(number)
            row = connection.execute(sa.select(ANNOTATORS).where(known)).one_or_none()
        # An unknown number takes as long as a wrong secret.
        fits = hmac.compare_digest(row.token_hash if row else _digest(""), _digest(secret))
        if row is None or not fits or row.revoked_at is not None:
            record(connection, "refused login", row.name if row else "", address=address)
            return None
        cookie, now = secrets.token_urlsafe(32), time.time()
        connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.expires_at < now))
        new = sa.insert(SESSIONS).values(
            annotator=row.annotator,
            cookie_hash=_digest(cookie),
            csrf=secrets.token_urlsafe(24),
            expires_at=now + SESSION_SECONDS,
        )
        (session,) = connection.execute(new).inserted_primary_key
        seen = sa.update(ANNOTATORS).where(ANNOTATORS.c.annotator == row.annotator)
        connection.execute(seen.values(last_seen=now))
        record(connection, "login", row.name, address=address)
    return f"{session}-{cookie}"


def log_out(database: AnswerDatabase, session: Session, address: str) -> None:
    """Ends a session."""
    with database.writing() as connection:
        connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.session == session.number))
        record(connection, "logout", session.annotator.name, address=address)


def session_of(database: AnswerDatabase, cookie: str) -> Session | None:
    """The session of a cookie; None if there is none, it has ended or the token is revoked."""
    number, _, secret = cookie.partition("-")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        return None
    both = sa.join(SESSIONS, ANNOTATORS, SESSIONS.c.annotator == ANNOTATORS.c.annotator)
    columns = (*ANNOTATORS.c, SESSIONS.c.cookie_hash, SESSIONS.c.csrf, SESSIONS.c.expires_at)
    chosen = sa.select(*columns).select_from(both).where(SESSIONS.c.session == int(number))
    with database.reading() as connection:
        row = connection.execute(chosen).one_or_none()
    fits = hmac.compare_digest(row.cookie_hash if row else _digest(""), _digest(secret))
    now = time.time()
    if row is None or not fits or row.expires_at < now or row.revoked_at is not None:
        return None
    if row.last_seen is None or row.last_seen < now - SEEN_SECONDS:
        with database.writing() as connection:
            seen = sa.update(ANNOTATORS).where(ANNOTATORS.c.annotator == row.annotator)
            connection.execute(seen.values(last_seen=now))
    return Session(int(number), _annotator(row), row.csrf)


def _end_sessions(connection: sa.Connection, annotator: int) -> None:
    connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.annotator == annotator))


def _annotator(row: sa.Row) -> Annotator:
    return Annotator(
        row.annotator, row.name, bool(row.admin), row.revoked_at is not None, row.last_seen
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
