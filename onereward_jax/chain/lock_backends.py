"""The file or object by which a work folder is held: created once, replaced as a whole, read."""

from __future__ import annotations

import os
import pathlib
import uuid

from onereward_jax.storage import BucketFolder

FILE = "lock.json"


class LocalLockFile:
    """`lock.json` of a folder; on a mount that several hosts share too."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / FILE

    def create(self, text: str) -> bool:
        """Whether there was no such file; it is there then. Makes the folder when it is missing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(file, "w") as opened:
            opened.write(text)
        return True

    def read(self) -> str:
        """What it says; "" where there is none that can be read."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def replace(self, before: str, text: str) -> None:
        """Writes the text. What another process writes at the same moment may be lost."""
        partial = self._path.with_name(f"{FILE}.{uuid.uuid4().hex}")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self._path)

    def remove(self) -> None:
        """Removes it, if it is there."""
        self._path.unlink(missing_ok=True)


class BucketLockFile:
    """The object `lock.json` of a folder in a bucket."""

    def __init__(self, folder: BucketFolder) -> None:
        self._folder = folder

    def create(self, text: str) -> bool:
        """Whether there was no such object; of several who try at once one succeeds."""
        return self._folder.create(FILE, text.encode())

    def read(self) -> str:
        """What it says; "" where there is none, or none that can be read."""
        try:
            return (self._folder.read(FILE) or b"").decode("utf-8")
        except (OSError, ValueError):
            return ""

    def replace(self, before: str, text: str) -> None:
        """Writes the text if the object still says `before`; otherwise it stays as it is."""
        self._folder.edit(FILE, lambda now: text.encode() if now == before.encode() else now)

    def remove(self) -> None:
        """Removes it, if it is there."""
        self._folder.delete([FILE])
