"""Files and folders named in a config; those in a bucket are copied to this host first."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable
from pathlib import Path

from onereward_jax.common.user_path import user_path
from onereward_jax.storage.bucket_folder import (
    BucketFolder,
    ObjectState,
    is_bucket,
    state_of,
)
from onereward_jax.storage.cache_folder import copies_folder
from onereward_jax.storage.working_copy import WorkingCopy


def local_path(name: str | os.PathLike[str], *, again: bool = True) -> Path:
    """The local path of a file or folder; expands "~".

    A `gs://bucket/path` is synced to `copies_folder()`: only objects that differ in size or
    modification time are fetched. One process per host fetches while the others wait. If the
    bucket no longer has the object, the returned path does not exist.

    Args:
      name: file or folder, local or gs://.
      again: check the bucket again; False: only at this process's first call for `name`.

    Raises:
      OSError: the bucket cannot be reached.
      ModuleNotFoundError: gcsfs is not installed.
    """
    if not is_bucket(name):
        return user_path(name)
    url = str(name).rstrip("/")
    return _fetched(url) if again else _fetched_once(url)


def states_below(name: str) -> Callable[[str], ObjectState | None]:
    """For a local or bucket folder: a function from file name to state, None for missing files.

    Nothing is fetched. A copy made by `local_path` has the same state as its original.

    Raises:
      OSError, ModuleNotFoundError: as in `local_path`.
    """
    if is_bucket(name):
        return BucketFolder(name).list().get
    top = user_path(name)

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
