"""A FastAPI application behind a port, in a thread; its address, and who can reach it.

Shared by the annotation server and the server of the editor.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

STOP_SECONDS = 5
"""How long open requests may take when the server ends."""

IDLE_SECONDS = 75
"""How long an idle connection stays open: longer than proxies keep theirs (60 s in nginx and AWS).

A server that closes first resets the requests that are on their way.
"""


@runtime_checkable
class Place(Protocol):
    """Where a server listens.

    Attributes:
      host, port: as given; port 0: any free one.
      url: address that people use if it is another, such as that of a TLS proxy; "": none.
      local: whether only this machine can reach the server.
    """

    host: str
    port: int
    url: str

    @property
    def local(self) -> bool:
        """See the class."""
        ...


def usual_address(place: Place, port: int | None = None) -> str:
    """Where people open the server, without a final slash; `port`: that it listens on."""
    if place.url:
        return place.url.rstrip("/")
    host = place.host.strip("[]")
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port or place.port}"


def login_link(address: str, token: str) -> str:
    """The link that logs somebody in; the token is never sent in an address."""
    return f"{address}/#token={token}"


def traffic_warning(place: Place, url_option: str = "config.annotate.web.url") -> str:
    """A warning for a server that others can reach without TLS; "" if there is nothing to say."""
    if place.local or urlsplit(place.url).scheme == "https":
        return ""
    return (
        f"warning: the server listens on {place.host}, and its traffic, with the login links, "
        f"is not encrypted: put it behind a TLS proxy ({url_option}) or an SSH tunnel"
    )


@contextlib.contextmanager
def listening(
    app: FastAPI,
    place: Place,
    *,
    name: str,
    options: str,
    most_connections: int | None = None,
) -> Iterator[int]:
    """Serves an application in a thread while the context is open; gives the port.

    Args:
      app: the application.
      place: where to listen.
      name: of the server, in messages.
      options: what sets host and port, in messages.
      most_connections: beyond them requests are answered with 503.

    Raises:
      ValueError, OSError: the port cannot be used.
    """
    with _listener(place, options) as listener:
        config = uvicorn.Config(
            app,
            log_config=None,  # the handlers of the program stay as they are
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(place.url),
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            limit_concurrency=most_connections,
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            if not server.started:
                raise ValueError(f"the {name} has not started; its output says why")
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def _listener(place: Place, options: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host.strip("[]"), place.port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(
            f"{options}: cannot listen on {place.host}, port {place.port}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    return listener
