"""The record beside the results of a folder: what made each of them, so that a rerun skips them.

`edit_record.jsonl` has a line for each finished picture. It is written after the picture, so a
killed command repeats at most the pictures of one batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onereward_jax.common.atomic_file import atomic_file

RECORD = "edit_record.jsonl"

Settings = Mapping[str, Any]
"""What a result depends on, as JSON values."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished picture.

    Attributes:
      output: its path below the folder, with slashes.
      digest: of the file, `file_digest`.
      settings: what made it.
    """

    output: str
    digest: str
    settings: Settings


def file_digest(file: Path | bytes) -> str:
    """Digest of a file, by path or content. Raises OSError."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()[:32]
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def read_record(folder: Path) -> dict[str, Finished]:
    """The finished pictures of a folder, by output; {} without a record.

    A last line without an end, of a killed command, does not count.

    Raises:
      ValueError: another line is no such record.
    """
    path, found = folder / RECORD, {}
    if not path.is_file():
        return found
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            one = Finished(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(
                f"{path}, line {number} is no record of an edit: move the file away, and all is "
                "edited again"
            ) from None
        found[one.output] = one
    return found


@contextlib.contextmanager
def open_record(folder: Path) -> Iterator[Callable[[Finished], None]]:
    """Yields the function that appends a finished picture; the folder is created.

    Raises:
      ValueError: another command writes to the folder, or as `read_record`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{RECORD}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another command writes to {folder}: wait for its end") from None
        finished = read_record(folder)
        with atomic_file(folder / RECORD) as draft:
            draft.write_text("".join(map(_line, finished.values())), encoding="utf-8")
        with (folder / RECORD).open("a", encoding="utf-8") as file:

            def append(one: Finished) -> None:
                file.write(_line(one))
                file.flush()

            yield append


def unfinished(
    folder: Path, wanted: Mapping[str, Settings], finished: Mapping[str, Finished]
) -> tuple[list[str], dict[str, list[str]]]:
    """(outputs to make, the settings that changed for those of them that are there).

    Args:
      folder: of the results.
      wanted: output -> the settings to make it with.
      finished: from `read_record`.
    """
    missing, changed = [], {}
    for output, settings in wanted.items():
        one = finished.get(output)
        if one is None or not _is_intact(folder / output, one):
            missing.append(output)
        elif names := _differing(one.settings, settings):
            missing.append(output)
            changed[output] = names
    return missing, changed


def output_names(names: Sequence[str]) -> list[tuple[str, int]]:
    """(output, number of earlier rows of the same name) of each row.

    Outputs are called as their pictures, so that they keep their names when rows are added: a.png,
    and a-2.png for the second edit of a picture.

    Args:
      names: names of the pictures without suffix.
    """
    taken = {_folded(name) for name in names}
    seen: dict[str, int] = {}
    found = []
    for name in names:
        earlier = seen.get(_folded(name), 0)
        seen[_folded(name)] = earlier + 1
        output, number = name, earlier + 1
        while number > 1:
            output = f"{name}-{number}"
            if _folded(output) not in taken:
                break
            number += 1
        taken.add(_folded(output))
        found.append((f"{output}.png", earlier))
    return found


def _folded(name: str) -> str:
    """File systems of Windows and macOS do not tell upper from lower case."""
    return name.casefold()


def _line(one: Finished) -> str:
    return json.dumps(dataclasses.asdict(one)) + "\n"


def _is_intact(path: Path, one: Finished) -> bool:
    return path.is_file() and file_digest(path) == one.digest


def _differing(old: Settings, new: Settings) -> list[str]:
    new = json.loads(json.dumps(new))
    return [name for name in {**new, **old} if old.get(name) != new.get(name)]
