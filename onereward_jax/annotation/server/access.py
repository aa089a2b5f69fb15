"""Who makes a request: the session behind its cookie, and whether it may write."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

from fastapi import HTTPException, Request

from onereward_jax.annotation.server.annotators import Session, session_of
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.protection import RateLimit
from onereward_jax.annotation.web_settings import WebSettings


@dataclasses.dataclass(frozen=True)
class Access:
    """Checks of sessions; its methods are dependencies of routes."""

    database: AnswerDatabase
    logins: RateLimit
    writes: RateLimit
    cookie: str
    secure: bool

    @classmethod
    def of(cls, settings: WebSettings, database: AnswerDatabase) -> Access:
        """The checks of a server."""
        return cls(
            database,
            logins=RateLimit(settings.logins_per_minute),
            writes=RateLimit(settings.writes_per_minute),
            # Cookies do not know ports: two servers on one machine need two names.
            cookie=f"onereward_{hashlib.sha256(database.secret.encode()).hexdigest()[:8]}",
            secure=settings.url.startswith("https://"),
        )

    def session(self, request: Request) -> Session:
        """The session of a request. Raises HTTPException 401."""
        found = session_of(self.database, request.cookies.get(self.cookie, ""))
        if found is None:
            raise HTTPException(401, "log in with the link that you were given")
        return found

    def writer(self, request: Request) -> Session:
        """The session of a request that writes. Raises HTTPException 401, 403 or 429."""
        found = self.session(request)
        given = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(given.encode(), found.csrf.encode()):
            raise HTTPException(403, "the page is out of date: load it again")
        who = found.annotator.number
        if self.writes.exceeded(who):
            raise HTTPException(429, "too many answers within a minute: wait a little")
        self.writes.count(who)
        return found

    def admin(self, request: Request) -> Session:
        """The session of an admin. Raises HTTPException 401 or 403."""
        found = self.session(request)
        if not found.annotator.admin:
            raise HTTPException(403, "only admins may see this")
        return found


def address_of(request: Request) -> str:
    """The address a request comes from, as the audit trail can store it."""
    return request.client.host[:64] if request.client else ""
