"""The file `metadata.jsonl` as lines; what they say is in `metadata`."""

from __future__ import annotations

import pathlib

METADATA = "metadata.jsonl"


def metadata_lines(path: pathlib.Path) -> list[str]:
    """The lines of a `metadata.jsonl`; the mark that some editors begin UTF-8 with is dropped.

    They end at line feeds alone: JSON texts may hold other characters that look like line ends.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not UTF-8, naming the first line that is not.
    """
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
    return [line.removesuffix("\r") for line in lines]
