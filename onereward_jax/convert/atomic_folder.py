"""Folders that are written completely or not at all."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from onereward_jax.parallel import is_writer


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yields a hidden temporary folder, renamed to `folder` when the block succeeds.

    An existing `folder` is replaced as a whole. If the block raises, it is left unchanged and the
    temporary folder is removed. Leftovers of a killed process are removed first, so only one
    process at a time may write a given folder. Only process 0 touches the disk.
    """
    folder = Path(folder)
    # Not the process id: a restarted container has the same ids.
    draft = folder.with_name(f".{folder.name}.draft-{uuid.uuid4().hex}")
    if not is_writer():
        yield draft
        return
    _clean_up(folder)
    draft.mkdir(parents=True)
    try:
        yield draft
        if folder.exists():
            old = _former(folder)
            folder.rename(old)
            draft.rename(folder)
            shutil.rmtree(old)
        else:
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _former(folder: Path) -> Path:
    """Where the old folder is kept while the new one replaces it."""
    return folder.with_name(f".{folder.name}.old")


def _clean_up(folder: Path) -> None:
    """Removes the leftovers of a process killed while writing."""
    for draft in folder.parent.glob(f".{folder.name}.draft-*"):
        shutil.rmtree(draft, ignore_errors=True)
    old = _former(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames
    elif old.exists():
        shutil.rmtree(old)
