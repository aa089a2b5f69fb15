"""One token for all who may use a server: in a file, in a link, then in a cookie or a header."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from onereward_jax.annotation.server.protection import Refusal

SHORTEST = 16
"""Characters of a token: what people make up themselves is guessed."""

PROTECTED = "/api/"
"""What is below it needs the token; but for the login."""

LOGIN = "/api/login"

SESSION_SECONDS = 30 * 86400


def read_token(path: Path) -> str:
    """The token in a file, which is made, with a random one, if there is none.

    Raises:
      ValueError: it holds no token.
      OSError: the file cannot be read or written.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
    token = path.read_text().strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"--token_file: {path} must hold one token of at least {SHORTEST} letters and digits, "
            "without spaces; without the file, one is made"
        )
    return token


@dataclasses.dataclass(frozen=True)
class TokenCheck:
    """Whether a request carries the token; every request does if there is none.

    Attributes:
      token: the token; "" for none.
    """

    token: str

    @property
    def cookie(self) -> tuple[str, str]:
        """Name and value of the cookie: derived, so that it outlives a restart but not a change.

        Cookies do not know ports: two servers on one machine have two names.
        """
        value = hmac.digest(self.token.encode(), b"session", "sha256").hex()
        return f"onereward_{hashlib.sha256(value.encode()).hexdigest()[:8]}", value

    def is_right(self, given: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def __call__(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Refuses requests without the token, before their body is read."""
        path = scope["path"]
        if not self.token or not path.startswith(PROTECTED) or path == LOGIN:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_right(given.strip()):
            return None
        name, value = self.cookie
        found = cookie_parser(headers.get("cookie", "")).get(name, "")
        if hmac.compare_digest(found.encode(), value.encode()):
            return None
        return 401, "the token is missing: open the link that the server prints"
