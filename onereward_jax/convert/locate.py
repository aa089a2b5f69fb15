"""Where the folder of a model is that people name on a command line, in a config or in Python."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def find_model(name: str | os.PathLike[str], asked_by: str) -> Path:
    """The folder called `name`: a path, or else one that comes with the package.

    Args:
      name: such as "runs/mini/export/editor", or "mini_models/editor" of the package.
      asked_by: the flag or config field it was written in, for the message.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    given = Path(name).expanduser()
    for folder in (given, PACKAGE / given):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{asked_by}: there is no folder {given}")
