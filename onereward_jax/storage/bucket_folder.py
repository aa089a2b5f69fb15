"""A folder of a bucket: reads and writes its objects by relative name, in parallel, through gcsfs.

An object store has no folders and no renames. An object appears whole or not at all. A folder is
only a name prefix, so its marker object must be written last.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from onereward_jax.common.user_errors import Unreachable

SCHEME = "gs://"
THREADS = 32
"""Number of concurrent requests."""

TIME = "onereward-mtime"
"""Metadata key of an uploaded file's modification time, in nanoseconds."""

# Other hosts change the bucket: do not cache listings, here or in Orbax's paths.
fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
# This makes gcsfs query another service for the bucket type, which is not needed here.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def is_bucket(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is a gs:// URL.

    Raises:
      ValueError: it is a URL with another scheme.
    """
    text = str(name)
    if "://" in text and not text.startswith(SCHEME):
        raise ValueError(f"{text}: only {SCHEME}... URLs are supported")
    return text.startswith(SCHEME)


@dataclasses.dataclass(frozen=True)
class ObjectState:
    """Identifies a version of a file: size in bytes, modification time in ns."""

    size: int
    changed: int


class BucketFolder:
    """The objects whose names begin with the folder's name."""

    def __init__(self, url: str) -> None:
        """Sends no request.

        Args:
          url: gs://bucket/path.

        Raises:
          ValueError: the URL names no bucket.
          ModuleNotFoundError: gcsfs is not installed.
        """
        self._path = url.removeprefix(SCHEME).rstrip("/")
        self.url = f"{SCHEME}{self._path}"
        if not is_bucket(url) or not self._path.partition("/")[0]:
            raise ValueError(f"{url}: expected gs://bucket/path")
        try:
            import gcsfs
        except ImportError as error:
            raise ModuleNotFoundError(
                f"{url}: buckets need the package gcsfs: pip install -e '.[gcs]'"
            ) from error
        self._files = gcsfs.GCSFileSystem()

    def __str__(self) -> str:
        return self.url

    def list(self, under: str = "") -> dict[str, ObjectState]:
        """All objects below a subfolder (recursively), or the single object of that name, by name.

        Raises:
          OSError: there is no such bucket, or the request is refused.
          Unreachable: the service does not respond.
        """
        try:
            found = self._asked(lambda: self._files.find(self._full(under), detail=True))
        except FileNotFoundError as error:  # raised for a missing bucket, not for an empty folder
            bucket = self._path.partition("/")[0]
            raise OSError(f"{self.url}: there is no bucket {bucket}") from error
        start = len(self._path) + 1
        return {name[start:]: _state(about) for name, about in found.items() if name[start:]}

    def folders(self) -> list[str]:
        """Names of the direct subfolders."""
        return [name for name, kind in self._entries() if kind == "directory"]

    def files(self) -> list[str]:
        """Names of the objects directly in this folder."""
        return [name for name, kind in self._entries() if kind != "directory"]

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        try:
            return self._asked(lambda: self._files.cat_file(self._full(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, changed: int | None = None) -> None:
        """Writes an object, replacing an existing one.

        Args:
          name: name of the object.
          content: its whole content.
          changed: modification time in ns, as `list` returns it; None: now.
        """
        about = {} if changed is None else {"metadata": {TIME: str(changed)}}
        self._asked(lambda: self._files.pipe_file(self._full(name), content, **about))

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object if it does not exist; with concurrent calls exactly one succeeds."""
        try:
            self._asked(lambda: self._files.pipe_file(self._full(name), content, mode="create"))
        except FileExistsError:
            return False
        return True

    def edit(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """Read-modify-write of an object with concurrent writers; returns the new content.

        Args:
          name: name of the object.
          change: old content (b"" if there is no object) -> new content. Called again if another
            process wrote the object meanwhile: its write is never lost.
        """
        while True:
            generation = self._generation(name)
            before = (self.read(name) or b"") if generation else b""
            after = change(before)
            if after == before or self._replace(name, after, generation):
                return after

    def upload(self, files: Mapping[str, Path]) -> dict[str, ObjectState]:
        """Uploads local files; returns the state of each file at the time it was read.

        Args:
          files: object name -> local file. Files that no longer exist are skipped.
        """

        def one(entry: tuple[str, Path]) -> tuple[str, ObjectState] | None:
            name, path = entry
            try:
                state = state_of(path)
                about = {TIME: str(state.changed)}
                self._files.put_file(str(path), self._full(name), metadata=about)
            except FileNotFoundError:
                return None
            return name, state

        return dict(filter(None, self._each(one, files.items())))

    def download(self, names: Mapping[str, ObjectState], local: Path) -> None:
        """Downloads objects to files below `local`; each file is written atomically.

        Args:
          names: object name -> state from `list`; files get its modification time.
          local: the local copy of this folder.
        """

        def one(entry: tuple[str, ObjectState]) -> None:
            name, state = entry
            path = local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
            try:
                self._files.get_file(self._full(name), str(draft))
                os.utime(draft, ns=(state.changed, state.changed))
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)

        self._each(one, names.items())

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; missing ones are ignored."""
        paths = [self._full(name) for name in names]

        def one(path: str) -> None:
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                pass

        self._each(one, paths)

    def remove(self, folder: str, *, first: str) -> None:
        """Deletes a folder: first its marker object `first`, then the rest."""
        names = sorted(self.list(folder), key=lambda name: name != f"{folder}/{first}")
        self.delete(names[:1])
        self.delete(names[1:])

    def move(self, source: str, destination: str, *, last: str) -> None:
        """Renames a subfolder: copies within the bucket, then deletes.

        A folder is valid if it has the marker object `last`, which is copied last and deleted
        first. If killed at any point, one valid folder is left, or two equal ones.

        Args:
          source, destination: names of subfolders.
          last: name of the marker object.
        """
        names = [name.removeprefix(f"{source}/") for name in self.list(source)]

        def copy(name: str) -> None:
            self._files.cp_file(self._full(f"{source}/{name}"), self._full(f"{destination}/{name}"))

        rest = [name for name in names if name != last]
        ends = [last] if last in names else []
        for part in (rest, ends):
            self._each(copy, part)
        for part in (ends, rest):
            self.delete(f"{source}/{name}" for name in part)

    def _generation(self, name: str) -> str:
        """The generation of an object; "" if it does not exist."""
        try:
            return str(self._asked(lambda: self._files.info(self._full(name)))["generation"])
        except (FileNotFoundError, KeyError):
            return ""

    def _replace(self, name: str, content: bytes, generation: str) -> bool:
        """Replaces the object if it still has that generation; returns whether it did."""
        bucket, _, key = self._full(name).partition("/")
        boundary = uuid.uuid4().hex
        parts = (("application/json; charset=UTF-8", json.dumps({"name": key}).encode()),
                 ("application/octet-stream", content))  # fmt: skip
        body = b"".join(
            f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n"
            for kind, part in parts
        )
        try:
            self._files.call(
                "POST",
                f"{self._files._location}/upload/storage/v1/b/{bucket}/o",
                uploadType="multipart",
                ifGenerationMatch=generation or "0",
                headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
                data=body + f"--{boundary}--".encode(),
            )
        except FileExistsError:  # gcsfs raises it for a failed precondition
            return False
        return True

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _entries(self) -> list[tuple[str, str]]:
        try:
            found = self._asked(lambda: self._files.ls(self._path, detail=True))
        except FileNotFoundError:
            return []
        return [(one["name"].rstrip("/").rpartition("/")[2], one["type"]) for one in found]

    def _each(self, call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(THREADS) as threads:
            return self._asked(lambda: list(threads.map(call, items)))

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Calls `call` and translates its errors.

        Raises:
          FileNotFoundError, FileExistsError: passed on to the caller.
          OSError: an error of the local disk; or the service refuses the request (naming the
            folder).
          Unreachable: the service does not respond, after retries.
        """
        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            message = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if getattr(error, "code", None) in (400, 401, 403, 404):
                raise OSError(f"{self.url} cannot be used: {message}") from error
            raise Unreachable(f"{self.url} cannot be reached: {message}") from error


def state_of(path: Path) -> ObjectState:
    """The state of a local file."""
    found = path.stat()
    return ObjectState(found.st_size, found.st_mtime_ns)


def _state(about: Mapping[str, Any]) -> ObjectState:
    stored = (about.get("metadata") or {}).get(TIME)
    changed = int(stored) if stored else round(about["mtime"].timestamp() * 1e6) * 1000
    return ObjectState(int(about["size"]), changed)
