"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """Yields a hidden temporary file, renamed to `path` when the block succeeds.

    An existing file is replaced and keeps its permissions. If the block raises, the existing file
    is left unchanged and the temporary file is removed. A temporary file left by a killed process
    is overwritten, so only one process at a time may write a given path.

    Args:
      path: the file; its folder is created if missing.
      sync: fsync before the rename, so that the content survives a power loss.
    """
    path = Path(os.path.realpath(path))  # write through symbolic links
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    if len(os.fsencode(draft.name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
        draft = path.with_name(f".{digest}.draft{path.suffix}")
    draft.unlink(missing_ok=True)  # it may be a link to another file
    try:
        yield draft
        if sync:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
