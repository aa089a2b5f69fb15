"""Storage of a work folder's lock: a local file or a bucket object."""

from __future__ import annotations

import os
import pathlib
import uuid

from onereward_jax.storage import BucketFolder

FILE = "lock.json"


class LocalLockFile:
    """`lock.json` in a folder, also on a file system shared by multiple hosts."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / FILE

    def create(self, text: str) -> bool:
        """Creates the file exclusively; returns whether it did. Creates the folder if missing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(file, "w") as opened:
            opened.write(text)
        return True

    def read(self) -> str:
        """The content; "" if missing or unreadable."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def replace(self, before: str, text: str) -> None:
        """Writes the text, without compare-and-swap: a concurrent write may be lost."""
        partial = self._path.with_name(f"{FILE}.{uuid.uuid4().hex}")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self._path)

    def remove(self) -> None:
        """Removes it if it exists."""
        self._path.unlink(missing_ok=True)


class BucketLockFile:
    """The object `lock.json` of a folder in a bucket."""

    def __init__(self, folder: BucketFolder) -> None:
        self._folder = folder

    def create(self, text: str) -> bool:
        """Creates the object if it does not exist; with concurrent calls exactly one succeeds."""
        return self._folder.create(FILE, text.encode())

    def read(self) -> str:
        """The content; "" if missing or unreadable."""
        try:
            return (self._folder.read(FILE) or b"").decode("utf-8")
        except (OSError, ValueError):
            return ""

    def replace(self, before: str, text: str) -> None:
        """Compare-and-swap: writes the text if the content is still `before`."""
        self._folder.edit(FILE, lambda now: text.encode() if now == before.encode() else now)

    def remove(self) -> None:
        """Removes it if it exists."""
        self._folder.delete([FILE])
