"""JSON lines: one JSON object per line of a file.

Only a line feed ends a line. A JSON string may contain U+2028, U+0085 and other characters that
`str.splitlines` and text files split at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOM = b"\xef\xbb\xbf"
"""Byte order mark, as some editors write it at the beginning of a file."""


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines of a file that are not blank, numbered from 1.

    Raises:
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                yield number, line


def json_object(line: str | bytes) -> dict[str, Any]:
    """The fields of a line.

    Raises:
      ValueError: it is not UTF-8, not JSON, not an object, or has a field twice.
    """
    if isinstance(line, bytes):
        line = utf8(line)
    try:
        found = json.loads(line, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError:
        raise ValueError("not JSON: it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def utf8(line: bytes) -> str:
    """The text of a line; raises ValueError if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = line.startswith((b"\xff\xfe", b"\xfe\xff"))
        hint = "; it looks like UTF-16: save the file as UTF-8" if utf16 else ""
        raise ValueError(f"not UTF-8 ({error.reason}){hint}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} is given twice")
    return found
