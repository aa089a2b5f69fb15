"""Runs the server: in a thread beside a run, or until a signal."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import sqlalchemy as sa
import uvicorn

from onereward_jax.annotation.guidelines import read_guidelines
from onereward_jax.annotation.server.annotators import annotators, make_token
from onereward_jax.annotation.server.app import build_app
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.tables import AUDIT
from onereward_jax.annotation.web_settings import WebSettings

STOP_SECONDS = 5
"""How long open requests may take when the server ends."""


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


def usual_address(settings: WebSettings, port: int | None = None) -> str:
    """Where people open the server, without a final slash; `port`: that it listens on."""
    if settings.url:
        return settings.url.rstrip("/")
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port or settings.port}"


def login_link(address: str, token: str) -> str:
    """The link that logs an annotator in; the token is never sent in an address."""
    return f"{address}/#token={token}"


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
        listener = stack.enter_context(_listener(settings))
        config = uvicorn.Config(
            app,
            log_config=None,  # the handlers of the run stay as they are
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.url),
            timeout_graceful_shutdown=STOP_SECONDS,
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="annotation server"
        )
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            if not server.started:
                raise ValueError("the annotation server has not started; its output says why")
            yield Server(settings, database, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


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


def traffic_warning(settings: WebSettings) -> str:
    """A warning for a server that others can reach without TLS; "" if there is nothing to say."""
    if settings.local or urlsplit(settings.url).scheme == "https":
        return ""
    return (
        f"warning: the server listens on {settings.host}, and its traffic, with the login links, "
        "is not encrypted: put it behind a TLS proxy (config.annotate.web.url) or an SSH tunnel"
    )


def _listener(settings: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(
            f"config.annotate.web: cannot listen on {settings.host}, port {settings.port}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    return listener
