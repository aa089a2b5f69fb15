"""Compares the files of two runs bit by bit, except for timestamps and timings."""

from __future__ import annotations

import json
import pathlib
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

LEFT_OUT = ("checkpoints", "events", "processes", "profile", "vae_run", "editor_run",
            "judge_run", "judge_refined_run")  # fmt: skip
"""Ignored folders. The final weights of the checkpoints are in folders that are compared."""
NOT_COMPARED = ("command.json", "lock.json", "picture_digests.json")
CLOCK = ("answered_at", "seconds", "finished", "goodput", "wait", "memory", "compil", "time",
         "date")  # fmt: skip
"""Fields whose names contain one of these differ from run to run."""
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


def differences(whole: pathlib.Path, other: pathlib.Path) -> list[str]:
    """A line for each file that differs, is missing, or is left over."""
    wanted, found = (dict(_files(folder)) for folder in (whole, other))
    lines = [f"missing: {name}" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"left over: {name}" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        one, two = (_content(files[name], folder) for files, folder in
                    ((wanted, whole), (found, other)))  # fmt: skip
        if one != two:
            lines.append(f"differs: {name}: {_first(one, two)}")
    return lines


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_dir() or path.name in NOT_COMPARED or set(inside.parts) & set(LEFT_OUT):
            continue
        if path.name.endswith(("-wal", "-shm")):  # of an SQLite store, and part of it
            continue
        yield str(inside), path


def _content(path: pathlib.Path, root: pathlib.Path) -> Any:
    if path.suffix == ".sqlite":
        return _rows(path)
    if path.suffix in (".json", ".jsonl", ".md", ".html"):
        text = path.read_text(encoding="utf-8").replace(str(root), "")
        text = text.replace(f"OneReward: {root.name}", "OneReward")  # the title of a report
        if path.suffix == ".jsonl":
            return [_without_clock(json.loads(line)) for line in text.split("\n") if line]
        if path.suffix == ".json":
            return _without_clock(json.loads(text))
        return DATE.sub("", text)
    return path.read_bytes()


def _rows(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, without timestamps and timings."""
    with sqlite3.connect(path) as store:
        store.row_factory = sqlite3.Row
        tables = {
            name: [_without_clock(dict(row)) for row in store.execute(f"SELECT * FROM {name}")]
            for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
    return {name: sorted(rows, key=json.dumps) for name, rows in tables.items()}


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_clock(one)
            for name, one in value.items()
            if not any(part in str(name) for part in CLOCK)
        }
    if isinstance(value, list):
        return [_without_clock(one) for one in value]
    return value


def _first(one: Any, two: Any, where: str = "") -> str:
    """The first difference between two contents."""
    if isinstance(one, dict) and isinstance(two, dict):
        for name in (*one, *two):
            if name not in one or name not in two:
                return f"{where}.{name} is in one of them"
            if one[name] != two[name]:
                return _first(one[name], two[name], f"{where}.{name}")
    if isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            return f"{where} has {len(one)} and {len(two)} entries"
        number = next(number for number, pair in enumerate(zip(one, two)) if pair[0] != pair[1])
        return _first(one[number], two[number], f"{where}[{number}]")
    if isinstance(one, bytes | str):
        same = next((n for n, pair in enumerate(zip(one, two)) if pair[0] != pair[1]), "its end")
        return f"{where} {len(one)} and {len(two)} bytes, from {same}"
    return f"{where} is {one!r} and {two!r}"
