"""The members of a JSON object with their lines, so that a bad one can be found in a long file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onereward_jax.common.json_lines import BOM, utf8

_BLANK = " \t\r\n"


def json_members(path: Path) -> Iterator[tuple[int, str, Any]]:
    """(line, name, value) of each member of the object in a file, in order.

    Raises:
      ValueError: the file is not UTF-8, not JSON, not an object, or has a name twice.
      OSError: it cannot be read.
    """
    text = utf8(path.read_bytes().removeprefix(BOM))
    decoder, names = json.JSONDecoder(), set()
    place, line, counted = _past(text, 0), 1, 0
    if text[place : place + 1] != "{":
        raise ValueError(f"{path} is not a JSON object")
    place = _past(text, place + 1)
    try:
        while text[place : place + 1] != "}":
            line, counted = line + text.count("\n", counted, place), place
            name, place = decoder.raw_decode(text, place)
            if not isinstance(name, str):
                raise json.JSONDecodeError("a name expected", text, counted)
            place = _expect(text, _past(text, place), ":")
            value, place = decoder.raw_decode(text, _past(text, place))
            if name in names:
                raise ValueError(f"{path}, line {line}: {name!r} is given twice")
            names.add(name)
            yield line, name, value
            place = _past(text, place)
            if text[place : place + 1] != "}":
                place = _past(text, _expect(text, place, ","))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError:
        raise ValueError(f"{path}, line {line}: not JSON: it is nested too deeply") from None


def _past(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANK:
        place += 1
    return place


def _expect(text: str, place: int, sign: str) -> int:
    if text[place : place + 1] != sign:
        raise json.JSONDecodeError(f"{sign!r} expected", text, place)
    return place + 1
