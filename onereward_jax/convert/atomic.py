"""Folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from onereward_jax.parallel import is_writer


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden sibling folder to write into, renamed to `folder` when the block succeeds.

    An existing `folder` is replaced as a whole; when the block raises, it stays as it was and
    what was written is removed. Only the writer process touches the disk.
    """
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.draft-{os.getpid()}")
    if not is_writer():
        yield draft
        return
    draft.mkdir(parents=True)
    try:
        yield draft
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
            folder.rename(old)
            draft.rename(folder)
            shutil.rmtree(old)
        else:
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
