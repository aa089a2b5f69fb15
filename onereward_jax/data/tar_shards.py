"""Samples of tar files as the library webdataset writes them.

    0001.jpg   0001.mask.png   0001.target.jpg   0001.json   0001.txt

Files whose names are equal up to the first dot of the last part belong to one sample. What follows
the dot says what they are: a picture, "mask." or "target." and a picture's suffix, "json" with
fields of the row, "txt" with the prompt. A tar is read once to find its members; pictures are then
read by offset.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import tarfile
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.json_lines import BOM, json_object, utf8
from onereward_jax.data.example import RowError
from onereward_jax.data.picture_files import SUFFIXES

COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}
"""First bytes of compressed files -> the command that unpacks them."""

LONGEST_TEXT = 1 << 20
"""Bytes of a json or txt member."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A picture in a tar: its file, and where its content is, in bytes."""

    tar: pathlib.Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its content. Raises RowError if the tar has become shorter."""
        with self.tar.open("rb") as file:
            content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) != self.size:
            raise RowError(f"{self.tar.name} is shorter than when it was opened")
        return content


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample.

    Attributes:
      key: its name, without suffix.
      fields: what its json and txt files say; or the first error.
      pictures: field, such as "image" -> its member.
    """

    key: str
    fields: Mapping[str, Any] | RowError
    pictures: Mapping[str, Member]


def tar_samples(path: pathlib.Path) -> tuple[Sample, ...]:
    """The samples of a tar, in order of their first files. The result is cached.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is compressed, damaged or not a tar.
    """
    state = path.stat()
    return _samples(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _samples(path: pathlib.Path, size: int, changed: int) -> tuple[Sample, ...]:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, command in COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f"{path} is compressed, so its pictures cannot be read one by one: unpack it with "
                f"{command}"
            )
    found: dict[str, _Building] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                hidden = name.startswith(".") or (name.startswith("__") and name.endswith("__"))
                if not member.isreg() or hidden:
                    continue
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}".lstrip("/")
                found.setdefault(key, _Building()).add(path, tar, member, suffix.lower())
    except (tarfile.TarError, EOFError, OverflowError, UnicodeError) as error:
        raise ValueError(f"{path} is not a tar, or damaged: {error}") from error
    return tuple(
        Sample(key, one.error or one.fields, one.pictures)
        for key, one in found.items()
        if one.pictures or one.fields or one.error
    )


class _Building:
    """A sample while its members are read."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.pictures: dict[str, Member] = {}
        self.error: RowError | None = None

    def add(
        self, path: pathlib.Path, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str
    ) -> None:
        """Adds a member with this suffix, which may contain dots."""
        role, _, kind = suffix.rpartition(".")
        try:
            if member.issparse():
                raise RowError(f"{member.name} is stored as a sparse file")
            if f".{kind}" in SUFFIXES:
                self._put(self.pictures, role or "image", member, path)
            elif suffix == "json":
                for name, value in json_object(_text(tar, member)).items():
                    self._put(self.fields, name, member, value=value)
            elif kind == "txt":
                words = " ".join(_text(tar, member).split())
                self._put(self.fields, role or "text", member, value=words)
        except ValueError as error:
            self.error = self.error or RowError(f"{member.name}: {error}")

    def _put(
        self,
        where: dict[str, Any],
        name: str,
        member: tarfile.TarInfo,
        path: pathlib.Path | None = None,
        value: Any = None,
    ) -> None:
        if name in where and path is not None:
            raise RowError(f"the sample has another {name}")
        if where.get(name, value) != value:
            raise RowError(f"the sample has another {name}: {where[name]!r}")
        is_picture = path is not None
        where[name] = Member(path, member.offset_data, member.size) if is_picture else value


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > LONGEST_TEXT:
        raise RowError(f"{member.size} bytes, at most {LONGEST_TEXT} expected")
    return utf8(tar.extractfile(member).read().removeprefix(BOM))
