"""Runs the server: in a thread beside a run, or until a signal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from onereward_jax.annotation.guidelines import read_guidelines
from onereward_jax.annotation.server.annotators import annotators, make_token
from onereward_jax.annotation.server.app import build_app
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.http_server import listening, login_link, usual_address
from onereward_jax.annotation.server.tables import AUDIT
from onereward_jax.annotation.web_settings import WebSettings


class Server:
    """A server that is running.

    Attributes:
      address: where people open it, without a final slash.
      database: its answers.
    """

    def __init__(self, settings: WebSettings, database: AnswerDatabase, port: int) -> None:
        self.database = database
        self.address = usual_address(settings, port)

    def changes(self) -> int:
        """Number of lines of the audit trail: rises with every answer."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(AUDIT.c.entry))).scalar() or 0

    def link(self, token: str) -> str:
        """The link that logs an annotator in."""
        return login_link(self.address, token)


@contextlib.contextmanager
def serving(settings: WebSettings) -> Iterator[Server]:
    """Serves in a thread while the context is open.

    Raises:
      ValueError, OSError: the database, the questions or the port cannot be used.
    """
    database = AnswerDatabase(settings.database)
    with contextlib.ExitStack() as stack:
        stack.callback(database.close)
        app = build_app(settings, database)
        port = stack.enter_context(
            listening(app, settings, name="annotation server", options="config.annotate.web")
        )
        yield Server(settings, database, port)


def check_server(settings: WebSettings) -> None:
    """Checks what can be checked without serving; creates no file.

    Raises:
      ValueError: a database server cannot be reached, or the guidelines have a file of no
        dimension.
      FileNotFoundError: there are no guidelines.
    """
    read_guidelines(settings.guidelines or "")
    if not settings.database.startswith("sqlite:"):
        AnswerDatabase(settings.database).close()


def first_link(server: Server) -> str:
    """The login link of a new admin; "" if the database has annotators already."""
    if annotators(server.database):
        return ""
    return server.link(make_token(server.database, "admin", admin=True))
