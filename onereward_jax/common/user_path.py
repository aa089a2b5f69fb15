"""Paths as users write them: "~" is their home folder."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(name: str | os.PathLike[str]) -> Path:
    """The path, with "~" and "~name" at its beginning replaced by that user's home folder.

    A file's name may begin with "~" too: without such a user, the path is unchanged.
    """
    return Path(os.path.expanduser(name))
