"""Paths as users write them: "~" is their home folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def user_path(name: str | os.PathLike[str]) -> Path:
    """The path, with "~" and "~name" at its beginning replaced by that user's home folder.

    A file's name may begin with "~" too: without such a user, the path is unchanged.
    """
    return Path(os.path.expanduser(name))


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it is a URL, also as pathlib shortens it ("s3:/bucket/a.png")."""
    return bool(_URL.match(os.fspath(path))) and not Path(path).parent.exists()
