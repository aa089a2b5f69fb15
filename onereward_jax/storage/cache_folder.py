"""The folder on this host that caches bucket content."""

from __future__ import annotations

import os
from pathlib import Path

from onereward_jax.common.user_path import user_path

VARIABLE = "ONEREWARD_COPIES"


def copies_folder() -> Path:
    """The folder named by ONEREWARD_COPIES; default ~/.cache/onereward_jax/copies.

    It should be on a local disk with space for everything the stages read and write.
    """
    named = os.environ.get(VARIABLE, "")
    return user_path(named or "~/.cache/onereward_jax/copies").absolute()
