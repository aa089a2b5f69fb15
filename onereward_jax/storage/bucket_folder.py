"""A folder of a bucket: its objects by their names in it, many at a time, through gcsfs.

An object store has no folders and no renames. An object appears whole or not at all; a folder is
what its names say, so whoever writes one has to write last what makes it count.
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
"""Requests under way at the same time."""

TIME = "onereward-mtime"
"""Of an object that was a file: when that was changed, in nanoseconds."""

# Other hosts change the bucket: what was listed is not remembered, by Orbax's paths neither.
fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
# With it gcsfs asks another service, of kinds of buckets that need not be told apart here.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def is_bucket(name: str | os.PathLike[str]) -> bool:
    """Whether this names a bucket, or a folder or file of one.

    Raises:
      ValueError: it is the URL of something else.
    """
    text = str(name)
    if "://" in text and not text.startswith(SCHEME):
        raise ValueError(f"{text}: of URLs only {SCHEME}... can be used")
    return text.startswith(SCHEME)


@dataclasses.dataclass(frozen=True)
class ObjectState:
    """By what two versions of a file are told apart: size in bytes, time of change in ns."""

    size: int
    changed: int


class BucketFolder:
    """The objects whose names begin with that of the folder."""

    def __init__(self, url: str) -> None:
        """Asks nothing yet.

        Args:
          url: gs://bucket/path.

        Raises:
          ValueError: no bucket is named.
          ModuleNotFoundError: gcsfs is not installed.
        """
        self._path = url.removeprefix(SCHEME).rstrip("/")
        self.url = f"{SCHEME}{self._path}"
        if not is_bucket(url) or not self._path.partition("/")[0]:
            raise ValueError(f"{url}: gs://bucket/path is expected")
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
        """The objects below a folder of this one, or that single object, by name.

        Raises:
          OSError: there is no such bucket; others as all methods, see `_asked`.
        """
        try:
            found = self._asked(lambda: self._files.find(self._full(under), detail=True))
        except FileNotFoundError as error:  # of an empty folder nothing is found, and nothing wrong
            bucket = self._path.partition("/")[0]
            raise OSError(f"{self.url}: there is no bucket {bucket}") from error
        start = len(self._path) + 1
        return {name[start:]: _state(about) for name, about in found.items() if name[start:]}

    def folders(self) -> list[str]:
        """Names of the folders right below this one."""
        return [name for name, kind in self._entries() if kind == "directory"]

    def files(self) -> list[str]:
        """Names of the objects right below this one."""
        return [name for name, kind in self._entries() if kind != "directory"]

    def read(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        try:
            return self._asked(lambda: self._files.cat_file(self._full(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, changed: int | None = None) -> None:
        """Writes an object, in place of a former one.

        Args:
          name: of the object.
          content: all of it.
          changed: what `list` shall give as the time of change; None: the time of this call.
        """
        about = {} if changed is None else {"metadata": {TIME: str(changed)}}
        self._asked(lambda: self._files.pipe_file(self._full(name), content, **about))

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one; of several who try at once one succeeds."""
        try:
            self._asked(lambda: self._files.pipe_file(self._full(name), content, mode="create"))
        except FileExistsError:
            return False
        return True

    def edit(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """Changes an object that others may write at the same moment; returns its content.

        Args:
          name: of the object.
          change: what was there (b"" where there is nothing) -> what shall be there. Called again
            when somebody has written meanwhile: what they wrote is never overwritten.
        """
        while True:
            generation = self._generation(name)
            before = (self.read(name) or b"") if generation else b""
            after = change(before)
            if after == before or self._replace(name, after, generation):
                return after

    def upload(self, files: Mapping[str, Path]) -> dict[str, ObjectState]:
        """Writes local files as objects; returns the state of each file as it was read.

        Args:
          files: name -> file. One that has gone meanwhile is left out.
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
        """Reads objects into files below `local`, each of which appears whole.

        Args:
          names: of the objects, with the state that `list` gave; the files get its time.
          local: the folder that stands for this one.
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
        """Removes objects; those that are gone already do no harm."""
        paths = [self._full(name) for name in names]

        def one(path: str) -> None:
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                pass

        self._each(one, paths)

    def remove(self, folder: str, *, first: str) -> None:
        """Removes a folder: the object `first` of it, by which it counts, then the rest."""
        names = sorted(self.list(folder), key=lambda name: name != f"{folder}/{first}")
        self.delete(names[:1])
        self.delete(names[1:])

    def move(self, source: str, destination: str, *, last: str) -> None:
        """Renames a folder: copies within the bucket, then deletes.

        An object named `last` makes a folder count: in the new place it is written last, in the
        old one it goes first. Killed at any moment this leaves one folder that counts, or two equal
        ones.

        Args:
          source, destination: names of folders of this one.
          last: name of an object in them.
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
        """The version of an object; "" where there is none."""
        try:
            return str(self._asked(lambda: self._files.info(self._full(name)))["generation"])
        except (FileNotFoundError, KeyError):
            return ""

    def _replace(self, name: str, content: bytes, generation: str) -> bool:
        """Whether the object was still of that version, and is replaced now."""
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
        except FileExistsError:  # what gcsfs makes of a condition that does not hold
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
        """What `call` gives.

        Raises:
          FileNotFoundError, FileExistsError: for the caller to understand.
          OSError: of the local disk; or naming the folder, what the service refuses for good.
          Unreachable: it does not answer, though it was asked several times.
        """
        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if getattr(error, "code", None) in (400, 401, 403, 404):
                raise OSError(f"{self.url} cannot be used: {told}") from error
            raise Unreachable(f"{self.url} cannot be reached: {told}") from error


def state_of(path: Path) -> ObjectState:
    """Of a local file."""
    found = path.stat()
    return ObjectState(found.st_size, found.st_mtime_ns)


def _state(about: Mapping[str, Any]) -> ObjectState:
    told = (about.get("metadata") or {}).get(TIME)
    changed = int(told) if told else round(about["mtime"].timestamp() * 1e6) * 1000
    return ObjectState(int(about["size"]), changed)
