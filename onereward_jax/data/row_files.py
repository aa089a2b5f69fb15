"""Finds the files that hold the rows of a data set: a folder, a file, or a pattern of files.

photos/              metadata.jsonl, metadata.csv or metadata.parquet, or *.parquet, or *.tar; in
                     the folder, or in its subfolders train/, test/ and data/
photos/rows.csv      .jsonl, .csv, .tsv, .parquet or .tar
shards/s-{000000..000012}.tar, shards/*.tar
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable

from onereward_jax.common.listing import first_of
from onereward_jax.common.user_path import user_path
from onereward_jax.data.example import Split
from onereward_jax.storage import is_bucket, local_path

METADATA = "metadata.jsonl"

METADATA_FILES = (METADATA, "metadata.csv", "metadata.parquet")

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "tar",
}
"""Suffix -> kind of file."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_SPLIT = re.compile(r"(?:^|[-_.])(train|test|validation|valid|val|dev|eval)(?:[-_.]|$)")
_MOST_FILES = 100_000


@dataclasses.dataclass(frozen=True)
class RowFiles:
    """The files.

    Attributes:
      title: what they are called in messages.
      folder: the folder that they are in, or in subfolders of.
      files: at least one, all of one kind.
      kind: a value of `KINDS`.
    """

    title: str
    folder: pathlib.Path
    files: tuple[pathlib.Path, ...]
    kind: str

    def splits(self) -> tuple[Split | None, ...]:
        """The split of each file, by the names of Hugging Face's folders; None if not named.

        Files for validation are held out like those for test. If the names make only one split,
        they are ignored.
        """
        found: list[Split | None] = []
        for file in self.files:
            parts = file.relative_to(self.folder).as_posix().split("/")
            words = [word for part in parts for word in _SPLIT.findall(part)]
            found.append(None if not words else "train" if words[0] == "train" else "test")
        return tuple(found) if {"train", "test"} <= set(found) else (None,) * len(found)


def is_rows(path: str | os.PathLike[str]) -> bool:
    """Whether a path is for `row_files`, and not that of a picture."""
    path = user_path(path)
    if path.exists():
        return path.is_dir() or path.suffix.lower() in KINDS
    return path.suffix.lower() in KINDS or path.name.lower().endswith(_COMPRESSED)


def row_files(path: str | os.PathLike[str]) -> RowFiles:
    """The files that a path names; expands "~". Those of a bucket are copied to this host first.

    Raises:
      FileNotFoundError: there is no such file, or a folder has no rows.
      ValueError: files of several kinds match, or of a kind that is not read.
    """
    name = str(path)
    if is_bucket(name):
        return _row_files(name, _fetched(name))
    return _row_files(name, user_path(name))


def _row_files(title: str, path: pathlib.Path) -> RowFiles:
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return _of_kind(str(path), [path], path.parent)
    found = _matching(path)
    if not found:
        pattern = any(letter in path.name for letter in "*?[{")
        what = "file that matches" if pattern else "folder or file"
        raise FileNotFoundError(f"there is no {what} {title}")
    parents = [str(file.parent) for file in found]
    return _of_kind(title, found, pathlib.Path(os.path.commonpath(parents)))


def _in_folder(folder: pathlib.Path) -> RowFiles:
    files = [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    title = str(files[0] if len(files) == 1 else folder)
    below = sorted(path for path in folder.iterdir() if _is_part(path))
    files = files or [file for name in METADATA_FILES for file in _visible(below, name)]
    for pattern in ("*.parquet", "*.tar"):
        files = files or _visible([folder], pattern) or _visible(below, pattern)
    if not files:
        listed = "metadata.csv, metadata.parquet, *.parquet and *.tar"
        raise FileNotFoundError(
            f"{folder} is a folder without {METADATA} (nor {listed}){_instead(folder)}"
        )
    return _of_kind(title, files, folder)


def _instead(folder: pathlib.Path) -> str:
    """What to do with the files that are in a folder without rows."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if compressed := [name for name in names if name.lower().endswith(_COMPRESSED)]:
        return f"; {compressed[0]} is compressed: unpack it to a .tar"
    if others := [name for name in names if pathlib.Path(name).suffix.lower() in KINDS]:
        return f"; to read {others[0]}, name the file itself"
    return ""


def _of_kind(title: str, files: list[pathlib.Path], folder: pathlib.Path) -> RowFiles:
    kinds = {}
    for file in files:
        kind = KINDS.get(file.suffix.lower())
        if file.name.lower().endswith(_COMPRESSED):
            raise ValueError(f"{file} is compressed: unpack it to a .tar")
        if kind is None:
            raise ValueError(f"{file}: a file of rows ends in {', '.join(KINDS)}")
        kinds.setdefault(kind, file)
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise ValueError(f"{title} has both {first.name} and {second.name}: keep one kind of file")
    return RowFiles(title, folder, tuple(files), next(iter(kinds)))


def _is_part(path: pathlib.Path) -> bool:
    """Whether a path is a subfolder with a name that data sets on the hub give to their parts."""
    return (path.name == "data" or _SPLIT.fullmatch(path.name) is not None) and path.is_dir()


def _visible(folders: Iterable[pathlib.Path], pattern: str) -> list[pathlib.Path]:
    found = [path for folder in folders for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _matching(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that match a pattern with {000..012}, {a,b}, *, ? and [...]."""
    found: dict[pathlib.Path, None] = {}
    missing = []
    for name in _expanded(str(path)):
        if any(letter in name for letter in "*?["):
            place = pathlib.Path(name)
            top = pathlib.Path(place.anchor)
            matches = sorted(top.glob(str(place.relative_to(top)) if place.anchor else name))
            found |= dict.fromkeys(match for match in matches if match.is_file())
        elif pathlib.Path(name).is_file():
            found[pathlib.Path(name)] = None
        else:
            missing.append(name)
    if found and missing:
        listing = ", ".join(first_of(missing))
        raise FileNotFoundError(f"{path}: there is no file {listing}")
    return list(found)


def _expanded(name: str) -> Iterable[str]:
    """The names that braces stand for, as in webdataset's shards."""
    match = _RANGE.search(name)
    if match is None:
        return [name]
    first, last, words = match.groups()
    if words is not None:
        parts = words.split(",")
    else:
        if not 0 <= int(last) - int(first) < _MOST_FILES:
            raise ValueError(f"{name}: the range {match[0]} is empty or too long")
        parts = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    before, after = name[: match.start()], name[match.end() :]
    return [one for part in parts for one in _expanded(f"{before}{part}{after}")]


def _fetched(url: str) -> pathlib.Path:
    """The copy of a bucket's folder, file or pattern on this host.

    Files of paths need the pictures beside them, and patterns a listing: the folder is copied.
    """
    expanded = list(_expanded(url))
    if all(name.endswith((".tar", ".parquet")) for name in expanded) and not re.search(
        r"[*?\[]", url
    ):
        copies = [local_path(name, again=False) for name in expanded]
        return copies[0] if len(copies) == 1 else copies[0].parent / url.rpartition("/")[2]
    fixed = re.split(r"[*?\[{]", url, maxsplit=1)[0]
    is_file = fixed == url and pathlib.PurePosixPath(url).suffix.lower() in KINDS
    top = url.rpartition("/")[0] if is_file else fixed.rstrip("/") if fixed == url else ""
    top = top or fixed.rpartition("/")[0]
    rest = url.removeprefix(top).lstrip("/")
    copy = local_path(top, again=False)
    return copy / rest if rest else copy
