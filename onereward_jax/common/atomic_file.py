"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """A hidden sibling to write into, renamed to `path` when the block succeeds.

    An existing file is replaced, and its permissions kept; when the block raises, it stays as it
    was and what was written is removed. What a killed process has left gives way to the next one
    that writes the file, so only one at a time may.

    Args:
      path: of the file; its folder is made when missing.
      sync: wait until the content is on the disk, so that it outlives a loss of power.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    draft.unlink(missing_ok=True)  # which may be a link to another file
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
