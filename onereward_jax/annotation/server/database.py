"""Opens the answer database: SQLite that survives power loss, or a server that SQLAlchemy knows.

All writers lock one row, so that a question is never leased twice: on SQLite a transaction that
writes begins IMMEDIATE, elsewhere it selects the row FOR UPDATE.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from onereward_jax.annotation.server.tables import AUDIT, METADATA, SETTINGS, TRIGGERS, VERSION

BUSY_SECONDS = 30.0
"""How long a SQLite transaction waits for another."""


class AnswerDatabase:
    """The database; safe to use from many threads.

    Attributes:
      engine: SQLAlchemy's.
      secret: random text of this database, which names of pictures are made with.
    """

    def __init__(self, url: str) -> None:
        """Opens or creates the database.

        Args:
          url: an SQLAlchemy URL, e.g. "sqlite:////data/people.sqlite" or
            "postgresql://user@host/name".

        Raises:
          ValueError: the URL is wrong, the server cannot be reached, or it has no triggers of ours.
        """
        try:
            address = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise ValueError(f"the database {url!r} is no SQLAlchemy URL") from error
        self.name = address.render_as_string(hide_password=True)
        self._sqlite = address.get_backend_name() == "sqlite"
        if address.get_backend_name() not in TRIGGERS:
            raise ValueError(
                f"the database {self.name} is neither SQLite nor PostgreSQL, which answers can be "
                "kept in"
            )
        if self._sqlite:
            if not address.database or address.database == ":memory:":
                raise ValueError(f"the database {self.name} names no file")
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.engine = sa.create_engine(address, pool_size=20, pool_pre_ping=not self._sqlite)
            if self._sqlite:
                sa.event.listen(self.engine, "connect", _set_up_sqlite)
                sa.event.listen(self.engine, "begin", _begin_sqlite)
            self.secret = self._create()
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
            raise ValueError(f"the database {self.name} cannot be opened: {reason}") from error

    def _create(self) -> str:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._connect(writes=True))
            stack.enter_context(connection.begin())
            if not self._sqlite:  # two servers may start at once
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7391046)"))
            METADATA.create_all(connection)
            for statement in TRIGGERS[connection.dialect.name]:
                connection.exec_driver_sql(statement)
            known = dict(connection.execute(sa.select(SETTINGS)).all())
            if not known:
                known = {"version": VERSION, "secret": secrets.token_hex(32), "lock": ""}
                rows = [{"name": name, "value": value} for name, value in known.items()]
                connection.execute(sa.insert(SETTINGS), rows)
        if known["version"] != VERSION:
            raise ValueError(
                f"the database {self.name} has tables of version {known['version']}, this program "
                f"reads version {VERSION}"
            )
        return known["secret"]

    def _connect(self, *, writes: bool) -> sa.Connection:
        return self.engine.connect().execution_options(writes=writes)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that reads."""
        with self._connect(writes=False) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes, alone; it is on disk when the block has ended."""
        with self._connect(writes=True) as connection, connection.begin():
            if not self._sqlite:
                lock = sa.select(SETTINGS).where(SETTINGS.c.name == "lock").with_for_update()
                connection.execute(lock)
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def record(
    connection: sa.Connection,
    action: str,
    annotator: str,
    *,
    address: str = "",
    item: str | None = None,
    dimension: str | None = None,
    save_key: str | None = None,
    **detail: Any,
) -> None:
    """Adds a line to the audit trail, in the transaction of what it tells."""
    line = dict(
        at=time.time(),
        action=action,
        annotator=annotator,
        address=address,
        item=item,
        dimension=dimension,
        detail=json.dumps(detail, ensure_ascii=False),
        save_key=save_key,
    )
    connection.execute(sa.insert(AUDIT).values(line))


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin in `_begin_sqlite`
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000:.0f}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
