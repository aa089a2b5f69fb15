"""Custom tasks: a TOML file, named by the environment variable ONEREWARD_TASKS.

    [tasks.recolour]
    title = "object recolouring"              # in the judge's question, in tables and plots
    dimensions = ["text_alignment", "form"]   # E_k: dimensions of the paper or of this file
    probability = 0.25                        # p_k; those of the paper's four tasks sum to 1
    prompt = "another colour"                 # optional: default prompt

    [dimensions.form]
    words = "form and texture unchanged"      # in the judge's question

The file can contain several tasks and dimensions, in addition to those of the paper. It is read
once, when the package is imported, because array sizes depend on it. All processes of a run need
the same variable.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from onereward_jax.common.user_path import user_path

VARIABLE = "ONEREWARD_TASKS"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task of the file.

    Attributes:
      title: display name, also used in the judge's questions.
      dimensions: names of E_k.
      probability: default of p_k in the config.
      prompt: default prompt; None: the user must give a prompt.
    """

    title: str
    dimensions: tuple[str, ...]
    probability: float
    prompt: str | None


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """The content of the file.

    Attributes:
      path: path of the file; "" if there is none.
      tasks: name -> task.
      dimensions: name -> description in the judge's question.
    """

    path: str = ""
    tasks: Mapping[str, OwnTask] = dataclasses.field(default_factory=dict)
    dimensions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def version(self) -> str:
        """Hash of the whole content; "" if it is empty."""
        return _digest([{name: vars(one) for name, one in self.tasks.items()}, self.dimensions])

    def digest(self, field: str) -> str:
        """Hash of one field of all tasks, e.g. "prompt"; "" if there are no tasks."""
        return _digest([{name: vars(one)[field] for name, one in self.tasks.items()}])


@functools.cache
def named_task_file(tasks: tuple[str, ...], dimensions: tuple[str, ...]) -> TaskFile:
    """The task file named by the environment variable; empty if it is not set.

    Args:
      tasks, dimensions: reserved names.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is invalid; names the entry.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return TaskFile()
    file = user_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{VARIABLE} is {path!r}: there is no such file")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        return read_tasks(content, tasks, dimensions, path=str(file.absolute()))
    except ValueError as error:
        raise ValueError(f"{VARIABLE}, {path}: {error}") from error


def read_tasks(
    content: Mapping[str, Any],
    tasks: Collection[str],
    dimensions: Collection[str],
    *,
    path: str = "",
) -> TaskFile:
    """Parses the content of a task file.

    Args:
      content: the parsed TOML.
      tasks, dimensions: reserved names.
      path: path of the file.

    Raises:
      ValueError: an entry is invalid; names it.
    """
    _check_keys(content, {"tasks": Mapping, "dimensions": Mapping}, {"dimensions"}, "")
    words = {}
    for name, entry in content.get("dimensions", {}).items():
        _check_name(name, dimensions, "dimensions")
        _check_keys(entry, {"words": str}, (), f"dimensions.{name}")
        if "{prompt}" in entry["words"]:
            raise ValueError(f"dimensions.{name}.words: only text_alignment may use {{prompt}}")
        words[name] = entry["words"]
    found = {}
    for name, entry in content["tasks"].items():
        place = f"tasks.{name}"
        _check_name(name, tasks, "tasks")
        kinds = {"title": str, "dimensions": list, "probability": int | float, "prompt": str}
        _check_keys(entry, kinds, {"prompt"}, place)
        if unknown := [one for one in entry["dimensions"] if one not in (*dimensions, *words)]:
            known = ", ".join((*dimensions, *words))
            raise ValueError(f"{place}.dimensions: unknown {unknown[0]!r}; known: {known}")
        if len(set(entry["dimensions"])) < len(entry["dimensions"]):
            raise ValueError(f"{place}.dimensions has duplicates")
        if not (0 <= entry["probability"] < math.inf):
            raise ValueError(f"{place}.probability is {entry['probability']}: expected at least 0")
        found[name] = OwnTask(
            title=entry["title"],
            dimensions=tuple(entry["dimensions"]),
            probability=float(entry["probability"]),
            prompt=entry.get("prompt"),
        )
    return TaskFile(path, found, words)


def _digest(tables: list[Mapping[str, Any]]) -> str:
    text = json.dumps(tables)  # not sorted: the order in the file is the order in arrays
    return hashlib.sha256(text.encode()).hexdigest()[:12] if any(tables) else ""


def _check_name(name: str, taken: Collection[str], section: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{section}.{name}: a name starts with a-z and contains only a-z, 0-9 and _"
        )
    if name in taken:
        raise ValueError(f"{section}.{name} is already defined in the package")


def _check_keys(
    entry: Any, kinds: Mapping[str, Any], optional: Collection[str], place: str
) -> None:
    """Raises ValueError: a key is missing or unknown, or a value empty or of the wrong type."""
    prefix = f"{place}." if place else ""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place} is {entry!r}: expected a table")
    for name in entry:
        if name not in kinds:
            raise ValueError(f"{prefix}{name} is unknown; known: {', '.join(kinds)}")
    for name, kind in kinds.items():
        if name not in entry and name not in optional:
            raise ValueError(f"{prefix}{name} is missing")
        value = entry.get(name)
        if name in entry and (not isinstance(value, kind) or value in ("", [], {})):
            raise ValueError(f"{prefix}{name} is {value!r}: empty or of the wrong type")
