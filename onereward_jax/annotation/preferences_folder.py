"""Reads a preferences folder; `comparisons` has its schema."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from onereward_jax.annotation.comparisons import ABOUT, LINES, VERSION, Comparison, parse_line
from onereward_jax.common.json_lines import json_lines
from onereward_jax.common.listing import listed
from onereward_jax.data.example import RowError


def read_about(folder: pathlib.Path) -> dict[str, Any]:
    """The content of `about.json`.

    Raises:
      FileNotFoundError: the folder is not a preferences folder.
      ValueError: the file is damaged, or has another schema version.
    """
    for name in (ABOUT, LINES):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a preferences folder: there is no {name}")
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = about["schema"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if version != VERSION:
        raise ValueError(f"{path}: schema version {version!r}, this package reads {VERSION}")
    return about


def comparison_lines(folder: pathlib.Path) -> Iterator[tuple[int, Comparison | RowError]]:
    """(line number, comparison or why it cannot be read) of each line, read one by one."""
    for number, line in json_lines(folder / LINES):
        try:
            yield number, parse_line(line)
        except RowError as error:
            yield number, error


def read_comparisons(folder: pathlib.Path) -> list[Comparison]:
    """All comparisons of a folder; checks lines and that pictures exist, but decodes none.

    Raises:
      FileNotFoundError: it is not a preferences folder.
      ValueError: as `read_about`; or lines are bad (all are listed, with number and reason).
    """
    read_about(folder)
    found: dict[str, Comparison] = {}
    errors = []
    for number, one in comparison_lines(folder):
        error = one if isinstance(one, RowError) else _wrong_in(folder, one)
        if not error and one.id in found:
            error = f"id {one.id!r} is used twice"
        if error:
            errors.append(f"line {number}: {error}")
        else:
            found[one.id] = one
    if errors:
        head = f"{folder / LINES}: {len(errors)} bad line{'s' * (len(errors) > 1)}"
        raise ValueError(head + listed(errors))
    return list(found.values())


def content_digest(folder: pathlib.Path) -> str:
    """Fingerprint of a folder's comparisons, independent of the order of lines.

    Pictures count by their digests in the lines. Raises as `read_about`.
    """
    read_about(folder)
    lines = sorted(line.strip() for line in (folder / LINES).read_bytes().split(b"\n"))
    return hashlib.sha256(b"\n".join(filter(None, lines))).hexdigest()[:16]


def _wrong_in(folder: pathlib.Path, one: Comparison) -> str:
    if one.split is None:
        return "split is missing"
    for picture in one.pictures():
        if not (folder / picture.path).is_file():
            return f"there is no file {picture.path}"
    return ""
