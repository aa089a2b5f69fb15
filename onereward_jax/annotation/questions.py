"""Questions to people and their answers, as lines of JSON for whatever tool people work with.

A question names pictures; its answer is the same line with `best` and `worst`, numbers of
candidates, or both null where the candidates do not differ (∅ of the paper):

    {"triplet": "train/line-000004", "dimension": "structure", "best": 2, "worst": 0}

`annotator` may say who answered. What else stands in a question may be left in or out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onereward_jax.annotation.records import Preference
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

LISTED = 20
"""Bad lines named in an error message; the others are counted."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A triplet that people are asked about.

    Attributes:
      triplet: its name.
      task, prompt: what was to be done.
      image, mask: paths of the picture before the edit and of its mask.
      candidates: paths of what the editor made, by number.
    """

    triplet: str
    task: Task
    prompt: str
    image: str
    mask: str
    candidates: tuple[str, ...]


def write_questions(path: Path, asked: Iterable[Asked]) -> int:
    """Writes one line per triplet and dimension of its task; returns how many."""
    lines = [
        json.dumps(
            {
                "triplet": one.triplet,
                "dimension": dimension.value,
                "task": one.task.value,
                "prompt": one.prompt,
                "image": one.image,
                "mask": one.mask,
                "candidates": one.candidates,
            },
            ensure_ascii=False,
        )
        for one in asked
        for dimension in DIMENSIONS[one.task]
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def read_answers(
    path: Path, tasks: Mapping[str, Task], counts: Mapping[str, int]
) -> list[Preference]:
    """The answers in a file; questions that nobody has answered are passed over.

    Args:
      path: of the file.
      tasks: of the triplets that were asked about, by their names.
      counts: of their candidates.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: lines cannot be used: all of them are named at once, each with the reason; or
        nothing is answered.
    """
    answered_at = path.stat().st_mtime
    answers, errors = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            answer = _parse(line, tasks, counts, answered_at)
        except (ValueError, RecursionError) as error:
            errors.append(f"  line {number}: {error}")
        else:
            answers += [answer] if answer else []
    if errors:
        more = [f"  and {len(errors) - LISTED} more"] if len(errors) > LISTED else []
        listing = "\n".join(errors[:LISTED] + more)
        raise ValueError(f"{path}: {len(errors)} bad answers\n{listing}")
    if not answers:
        raise ValueError(f"{path}: no line has an answer, best and worst")
    return answers


def _parse(
    line: str, tasks: Mapping[str, Task], counts: Mapping[str, int], answered_at: float
) -> Preference | None:
    """The answer of a line, None for a question without one. Raises ValueError."""
    fields: Any = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    if not {"best", "worst"} & set(fields):
        return None
    for name in ("triplet", "dimension", "best", "worst"):
        if name not in fields:
            raise ValueError(f"{name} is missing")
    triplet, annotator = fields["triplet"], fields.get("annotator", "people")
    if triplet not in tasks:
        raise ValueError(f"triplet {triplet!r} has no candidates in this run")
    if not isinstance(annotator, str) or not annotator:
        raise ValueError(f"annotator must be a name, found {annotator!r}")
    for name in ("best", "worst"):
        value, last = fields[name], counts[triplet] - 1
        if value is not None and not (type(value) is int and 0 <= value <= last):
            raise ValueError(f"{name} must be a number from 0 to {last} or null, found {value!r}")
    task = tasks[triplet]
    named = [dimension.value for dimension in DIMENSIONS[task]]
    if fields["dimension"] not in named:
        raise ValueError(
            f"dimension {fields['dimension']!r} is not one of {', '.join(named)}, in which "
            f"{task.title} is judged"
        )
    return Preference(
        triplet_id=triplet,
        task=task,
        dimension=Dimension(fields["dimension"]),
        winner=fields["best"],
        loser=fields["worst"],
        annotator=annotator,
        answered_at=answered_at,
        seconds=0.0,
    )
