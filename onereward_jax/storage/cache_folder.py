"""Where this host keeps its copies of what lies in buckets."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ONEREWARD_COPIES"


def copies_folder() -> Path:
    """The folder that the variable ONEREWARD_COPIES names, else ~/.cache/onereward_jax/copies.

    It should be on a disk of this host, with room for what the stages read and write.
    """
    named = os.environ.get(VARIABLE, "")
    return Path(named or "~/.cache/onereward_jax/copies").expanduser().absolute()
