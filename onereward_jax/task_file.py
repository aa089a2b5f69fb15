"""Tasks of one's own, beside the paper's: a TOML file that the variable ONEREWARD_TASKS names.

    [tasks.recolour]
    title = "object recolouring"              # in the judge's question, in tables and plots
    dimensions = ["text_alignment", "form"]   # E_k: the paper's dimensions, or those below
    probability = 0.25                        # p_k, beside the paper's four, which sum to 1
    prompt = "another colour"                 # optional: for who writes none

    [dimensions.form]
    words = "form and texture as they were"   # in the question to the judge

`tasks` and `dimensions` may each hold several. The file is read once, when the package is imported,
since the sizes of arrays depend on it: every process of a run needs the same variable.
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
from pathlib import Path
from typing import Any

VARIABLE = "ONEREWARD_TASKS"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task of the file.

    Attributes:
      title: the name as people and the judge read it.
      dimensions: E_k, by name.
      probability: p_k, unless the config says otherwise.
      prompt: what stands for the prompt where the user writes none; None: one has to be written.
    """

    title: str
    dimensions: tuple[str, ...]
    probability: float
    prompt: str | None


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """What the file adds.

    Attributes:
      path: of the file; "" where there is none.
      tasks: by name.
      dimensions: name -> the words that ask the judge about it.
    """

    path: str = ""
    tasks: Mapping[str, OwnTask] = dataclasses.field(default_factory=dict)
    dimensions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def version(self) -> str:
        """Names all that it says; "" where it says nothing."""
        return _digest([{name: vars(one) for name, one in self.tasks.items()}, self.dimensions])

    def digest(self, field: str) -> str:
        """Names what a field says of each task, such as "prompt"; "" where there is no task."""
        return _digest([{name: vars(one)[field] for name, one in self.tasks.items()}])


@functools.cache
def named_task_file(tasks: tuple[str, ...], dimensions: tuple[str, ...]) -> TaskFile:
    """The file that the environment names; an empty one where it names none.

    Args:
      tasks, dimensions: names that are taken.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be used; says where and why.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return TaskFile()
    file = Path(path).expanduser()
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
    """What such a file holds.

    Args:
      content: of the file.
      tasks, dimensions: names that are taken.
      path: of the file.

    Raises:
      ValueError: naming the entry.
    """
    _check_keys(content, {"tasks": Mapping, "dimensions": Mapping}, {"dimensions"}, "")
    words = {}
    for name, entry in content.get("dimensions", {}).items():
        _check_name(name, dimensions, "dimensions")
        _check_keys(entry, {"words": str}, (), f"dimensions.{name}")
        if "{prompt}" in entry["words"]:
            raise ValueError(f"dimensions.{name}.words quote {{prompt}}: text_alignment alone may")
        words[name] = entry["words"]
    found = {}
    for name, entry in content["tasks"].items():
        place = f"tasks.{name}"
        _check_name(name, tasks, "tasks")
        kinds = {"title": str, "dimensions": list, "probability": int | float, "prompt": str}
        _check_keys(entry, kinds, {"prompt"}, place)
        if unknown := [one for one in entry["dimensions"] if one not in (*dimensions, *words)]:
            known = ", ".join((*dimensions, *words))
            raise ValueError(f"{place}.dimensions: no {unknown[0]!r}; there are {known}")
        if len(set(entry["dimensions"])) < len(entry["dimensions"]):
            raise ValueError(f"{place}.dimensions names one twice")
        if not (0 <= entry["probability"] < math.inf):
            raise ValueError(f"{place}.probability is {entry['probability']}: at least 0 expected")
        found[name] = OwnTask(
            title=entry["title"],
            dimensions=tuple(entry["dimensions"]),
            probability=float(entry["probability"]),
            prompt=entry.get("prompt"),
        )
    return TaskFile(path, found, words)


def _digest(tables: list[Mapping[str, Any]]) -> str:
    text = json.dumps(tables)  # in the order of the file: that of arrays
    return hashlib.sha256(text.encode()).hexdigest()[:12] if any(tables) else ""


def _check_name(name: str, taken: Collection[str], section: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{section}.{name}: a-z, 0-9 and _ make a name")
    if name in taken:
        raise ValueError(f"{section}.{name} is there already, in the package")


def _check_keys(
    entry: Any, kinds: Mapping[str, Any], optional: Collection[str], place: str
) -> None:
    """Raises ValueError: a key is missing, unknown, empty or of another kind."""
    prefix = f"{place}." if place else ""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place} is {entry!r}: a table expected")
    for name in entry:
        if name not in kinds:
            raise ValueError(f"{prefix}{name} is unknown; there are {', '.join(kinds)}")
    for name, kind in kinds.items():
        if name not in entry and name not in optional:
            raise ValueError(f"{prefix}{name} is missing")
        value = entry.get(name)
        if name in entry and (not isinstance(value, kind) or value in ("", [], {})):
            raise ValueError(f"{prefix}{name} is {value!r}: not what is expected there")
