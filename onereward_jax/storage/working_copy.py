"""A bucket folder and its local copy: inputs are fetched, outputs are published.

Programs work on the copy as on any folder. The bucket is the source of truth: a copy that differs
is overwritten, and unpublished files do not count. Not copied: checkpoints (folders with a numeric
name), which Orbax writes to the bucket directly; databases, whose content is published as JSON
lines; drafts; and files whose name begins with a dot.

The `heads` of a folder are its marker files (such as stage.json), which are written explicitly, one
at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from onereward_jax.storage.bucket_folder import BucketFolder, ObjectState, state_of

INDEXES = (".json", ".jsonl")
"""Suffixes of files that name other files: they are published after the files they name."""


class WorkingCopy:
    """A bucket folder with its local copy; one process per host manages it."""

    def __init__(self, bucket: BucketFolder, local: Path, *, heads: Sequence[str] = ()) -> None:
        """Reads and writes nothing.

        Args:
          bucket: the folder.
          local: the copy, created at the first fetch.
          heads: names of the marker files of subfolders. `fetch_heads` fetches them, `publish`
            skips them.
        """
        self.bucket, self.local, self._heads = bucket, local, tuple(heads)
        self._known: dict[str, ObjectState] = {}
        self._busy = threading.Lock()

    def fetch(self, under: str, *, remove: bool = True, left_out: tuple[str, ...] = ()) -> None:
        """Makes a folder or file of the copy equal to that of the bucket.

        Args:
          under: its name.
          remove: delete local files that the bucket does not have; otherwise they stay, to be
            published.
          left_out: suffixes of file names to skip.
        """
        with self._busy:
            there = {
                name: state
                for name, state in self.bucket.list(under).items()
                if copied(name) and not self._is_head(name) and not name.endswith(left_out)
            }
            here = self._scan(under)
            differing = {name: state for name, state in there.items() if here.get(name) != state}
            if remove:
                for name in here.keys() - there.keys():
                    (self.local / name).unlink(missing_ok=True)
                self._forget(under)
            self.bucket.download(differing, self.local)
            self._known |= there

    def fetch_heads(self) -> None:
        """Fetches the files directly in the folder, and the heads of its subfolders."""
        with self._busy:
            names = self.bucket.files()
            folders = self.bucket.folders()
            names += [f"{folder}/{head}" for folder in folders for head in self._heads]
            there: dict[str, ObjectState] = {}
            for name in filter(copied, names):
                there |= self.bucket.list(name)
            for head in self._heads:
                for path in self.local.glob(f"*/{head}"):
                    if path.relative_to(self.local).as_posix() not in there:
                        path.unlink()
            differing = {name: state for name, state in there.items() if self._state(name) != state}
            self.bucket.download(differing, self.local)

    def publish(self, under: str, *, remove: bool = True) -> None:
        """Uploads what has changed in a folder or file of the copy.

        Index files are uploaded after the files they name, so an interruption leaves no dangling
        names.

        Args:
          under: its name.
          remove: delete from the bucket known files that are gone from the copy.
        """
        with self._busy:
            if not self._below(under) and not remove:
                self._known |= self.bucket.list(under)
            indexes = [name for name in self._scan(under) if name.endswith(INDEXES)]
            contents = {}
            for name in indexes:
                state = self._state(name)
                if state is not None and state != self._known.get(name):
                    contents[name] = (state, (self.local / name).read_bytes())
            here = self._scan(under)
            changed = {
                name: self.local / name
                for name, state in here.items()
                if not name.endswith(INDEXES) and state != self._known.get(name)
            }
            self._known |= self.bucket.upload(changed)
            for name, (state, content) in contents.items():
                self.bucket.write(name, content, state.changed)
                self._known[name] = state
            if remove:
                gone = [name for name in self._below(under) if name not in here]
                self.bucket.delete(gone)
                for name in gone:
                    del self._known[name]

    def publish_file(self, name: str) -> None:
        """Uploads one file of the copy, without any filter."""
        self.bucket.upload({name: self.local / name})

    def edit(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """`BucketFolder.edit`, then writes the new content to the copy."""
        content = self.bucket.edit(name, change)
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
        draft.write_bytes(content)
        os.replace(draft, path)

    def _scan(self, under: str) -> dict[str, ObjectState]:
        top = self.local / under
        paths = [top] if top.is_file() else top.rglob("*")
        found = {}
        for path in paths:
            name = path.relative_to(self.local).as_posix()
            if copied(name) and not self._is_head(name) and path.is_file():
                state = self._state(name)
                if state is not None:
                    found[name] = state
        return found

    def _is_head(self, name: str) -> bool:
        return name.count("/") == 1 and name.rpartition("/")[2] in self._heads

    def _state(self, name: str) -> ObjectState | None:
        try:
            return state_of(self.local / name)
        except FileNotFoundError:
            return None

    def _below(self, under: str) -> list[str]:
        return [name for name in self._known if name == under or name.startswith(f"{under}/")]

    def _forget(self, under: str) -> None:
        for name in self._below(under):
            del self._known[name]


def copied(name: str) -> bool:
    """Whether a file of this name is synced between the bucket and its copies."""
    *folders, file = PurePosixPath(name).parts
    hidden = any(part.startswith(".") for part in (*folders, file))
    checkpoint = any(part.isdecimal() for part in folders)
    database = any(f".sqlite{end}" in file for end in ("", "-wal", "-shm"))
    return not (hidden or checkpoint or database or file.endswith(".partial"))
