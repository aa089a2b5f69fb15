"""Files and folders that a config names: those in a bucket are copied to this host first."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable
from pathlib import Path

from onereward_jax.storage.bucket_folder import (
    BucketFolder,
    ObjectState,
    is_bucket,
    state_of,
)
from onereward_jax.storage.cache_folder import copies_folder
from onereward_jax.storage.working_copy import WorkingCopy


def local_path(name: str | os.PathLike[str], *, again: bool = True) -> Path:
    """Where a file or folder is on this host; "~" is the user's home.

    What a bucket has (`gs://bucket/path`) is brought up to date under `copies_folder()`: only what
    differs in size or time of change is fetched. Of the processes of a host one does it while the
    others wait. A copy of something that the bucket has no more is empty: the path does not exist.

    Args:
      name: of the file or folder.
      again: ask the bucket whether it has changed since this process asked first.

    Raises:
      OSError: the bucket cannot be reached.
      ModuleNotFoundError: gcsfs is not installed.
    """
    if not is_bucket(name):
        return Path(name).expanduser()
    url = str(name).rstrip("/")
    return _fetched(url) if again else _fetched_once(url)


def states_below(name: str) -> Callable[[str], ObjectState | None]:
    """Of a folder here or in a bucket: file name -> its state, None where there is no such file.

    Nothing is fetched. A copy of a file (`local_path`) has the state of what it is the copy of.

    Raises:
      OSError, ModuleNotFoundError: as `local_path`.
    """
    if is_bucket(name):
        return BucketFolder(name).list().get
    top = Path(name).expanduser()

    def state(file: str) -> ObjectState | None:
        try:
            return state_of(top / file)
        except OSError:
            return None

    return state


def _fetched(url: str) -> Path:
    top, _, inside = url.rpartition("/")
    copy = copies_folder() / "inputs" / top.removeprefix("gs://")
    copy.mkdir(parents=True, exist_ok=True)
    with (copy / f".{inside}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        WorkingCopy(BucketFolder(top), copy).fetch(inside)
    return copy / inside


_fetched_once = functools.cache(_fetched)
