"""Folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from onereward_jax.parallel import is_writer


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden sibling folder to write into, renamed to `folder` when the block succeeds.

    An existing `folder` is replaced as a whole; when the block raises, it stays as it was and
    what was written is removed. What a killed process has left is removed first, so only one
    process at a time may write a folder. Only the writer process touches the disk.
    """
    folder = Path(folder)
    # Not the process number: a container that is started again has the same ones.
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
    """Where the folder is kept while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _clean_up(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote."""
    for draft in folder.parent.glob(f".{folder.name}.draft-*"):
        shutil.rmtree(draft, ignore_errors=True)
    old = _former(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames
    elif old.exists():
        shutil.rmtree(old)
