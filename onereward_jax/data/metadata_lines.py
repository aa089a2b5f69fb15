"""Reads the lines of `metadata.jsonl`; `metadata` parses them."""

from __future__ import annotations

import pathlib

METADATA = "metadata.jsonl"


def metadata_lines(path: pathlib.Path) -> list[str]:
    """The lines of a `metadata.jsonl`, without a byte order mark.

    Only a line feed ends a line: JSON strings may contain other characters that `splitlines` splits
    at.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming the first line that is not UTF-8.
    """
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
    return [line.removesuffix("\r") for line in lines]
