"""What every request passes before it reaches a route, and what every response carries.

Checks the Host header (DNS rebinding), the Origin of writes, and the size of bodies; adds the
Content-Security-Policy and its companions.
"""

from __future__ import annotations

import collections
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onereward_jax.annotation.server.http_server import Place
from onereward_jax.annotation.web_settings import is_loopback

BODY_BYTES = 16 << 10
"""Largest body of a request: an answer has some hundred bytes."""

SAFE_METHODS = ("GET", "HEAD")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


Refusal = tuple[int, str]
"""Status and sentence."""


class Protection:
    """ASGI middleware; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        place: Place,
        body_bytes: int = BODY_BYTES,
        also: Callable[[Scope, Headers], Refusal | None] = lambda *_: None,
    ) -> None:
        """Around an application.

        Args:
          app: the application.
          place: where it listens.
          body_bytes: largest body of a request.
          also: further refusals, before the body is read.
        """
        self._app = app
        self._hosts, self._body_bytes, self._also = Hosts(place), body_bytes, also

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            await _refuse(guarded, *refusal)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # disconnected
            body += message.get("body", b"")
            if len(body) > self._body_bytes:
                await _refuse(guarded, *self._too_large())
                return
            if not message.get("more_body"):
                break
        waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def received() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, received, guarded)

    def _too_large(self) -> Refusal:
        return 413, f"a request may have {self._body_bytes} bytes at most"

    def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Status and sentence, if the request is refused."""
        host = headers.get("host", "")
        if not self._hosts.allow(host):
            return 400, "this server is not reached under that host name"
        if scope["method"] in SAFE_METHODS:
            return self._also(scope, headers)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if origin is not None and not self._hosts.same_origin(origin, host):
            return 403, "requests from other sites are refused"
        if site not in ("same-origin", "none"):
            return 403, "requests from other sites are refused"
        length = headers.get("content-length", "0")
        if refusal := self._also(scope, headers):
            return refusal
        if not length.isdigit() or int(length) > self._body_bytes:
            return self._too_large()
        return None


class Hosts:
    """The host names under which a server may be reached.

    A page of another site can only use the name of that site (DNS rebinding), never an address in
    digits: with a public `host` those are all allowed.
    """

    def __init__(self, place: Place) -> None:
        names = {place.host.strip("[]").lower(), "localhost"}
        if not place.local:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._public = urlsplit(place.url).netloc.lower() if place.url else ""
        self._scheme = urlsplit(place.url).scheme if place.url else "http"
        self._names, self._local = names, place.local

    def allow(self, host: str) -> bool:
        """Whether a Host header names this server."""
        if self._public and host.lower() == self._public:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self._local or is_loopback(str(address))

    def same_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of a page of this server."""
        scheme, _, place = origin.lower().partition("://")
        if self._public and place == self._public:
            return scheme == self._scheme
        return place == host.lower() and scheme == "http"


class RateLimit:
    """Allows a number of events per key and minute; thread-safe."""

    def __init__(self, per_minute: int) -> None:
        self._most, self._lock = per_minute, threading.Lock()
        self._events: dict[object, collections.deque[float]] = {}

    def exceeded(self, key: object) -> bool:
        """Whether the key has used up its events of the last minute."""
        with self._lock:
            return len(self._recent(key)) >= self._most

    def count(self, key: object) -> None:
        """Counts an event."""
        with self._lock:
            if len(self._events) > 10_000:  # forget those that are quiet
                for old in [one for one in self._events if not self._recent(one)]:
                    del self._events[old]
            self._recent(key).append(time.monotonic())

    def _recent(self, key: object) -> collections.deque[float]:
        events = self._events.setdefault(key, collections.deque())
        while events and events[0] < time.monotonic() - 60.0:
            events.popleft()
        return events


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
