"""Questions to people and their answers, as lines of JSON for whatever tool people work with.

A question is a line of `questions.jsonl`, here broken in several:

    {"triplet": "train/fill-0a1b2c3d",      the triplet's name
     "dimension": "structure",              what to judge; one line for each dimension of the task
     "digest": "9c1185a5c5e9fc54",          binds the answer to task, prompt and all pixels below
     "task": "fill", "prompt": "a red apple",
     "image": "train/fill-0a1b2c3d/image-5feceb66.png",      paths relative to this file
     "mask": "train/fill-0a1b2c3d/mask-5feceb66.png",        white: to be edited
     "candidates": ["train/fill-0a1b2c3d/0-6b86b273.png", ...]}

An answer is a line with at least `dimension` and `digest`, and

    "best", "worst"   numbers of candidates, from 0; or null twice where they do not differ (the
                      paper's ∅). Left out or "" twice: not answered
    "annotator"       who answered; left out: "people", or the file's name in a folder of files

as in {"dimension": "structure", "digest": "9c1185a5c5e9fc54", "best": 2, "worst": 0}. Everything
else of the question may be left in or out. Numbers may come as 2, 2.0 or "2". A line may stand
more than once, with answers of several annotators; one annotator answers a question once. Lines
end at line feeds only.

Answers may be written into `questions.jsonl` itself: from the first one on it is only ever added
to. `answers.read_answers` reads them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.tasks import Task

FILE = "questions.jsonl"


@dataclasses.dataclass(frozen=True)
class Question:
    """What people are asked about a triplet, in every dimension.

    Attributes:
      triplet: its name.
      task, prompt: what was to be done.
      dimensions: in which the candidates are judged.
      image, mask: paths of the picture before the edit and of its mask.
      candidates: paths of what the editor made, by number.
      digest: of all of these but the dimensions, see `binding.question_digest`.
    """

    triplet: str
    task: Task
    prompt: str
    dimensions: tuple[str, ...]
    image: str
    mask: str
    candidates: tuple[str, ...]
    digest: str

    def lines(self) -> Iterator[dict[str, Any]]:
        """One for each dimension, as the file has them."""
        for dimension in self.dimensions:
            yield {
                "triplet": self.triplet,
                "dimension": dimension,
                "digest": self.digest,
                "task": self.task.value,
                "prompt": self.prompt,
                "image": self.image,
                "mask": self.mask,
                "candidates": self.candidates,
            }


_FIELDS = frozenset({field.name for field in dataclasses.fields(Question)} - {"dimensions"}) | {
    "dimension"
}


def add_questions(path: Path, questions: Iterable[Question]) -> int:
    """Adds the lines that the file does not have yet, at its end; returns how many.

    See `with_questions`.
    """
    old = path.read_bytes() if path.exists() else b""
    new = with_questions(old, questions)
    if new == old:
        return 0
    with atomic_file(path, sync=True) as draft:
        draft.write_bytes(new)
    return new.removeprefix(old).lstrip(b"\n").count(b"\n")


def with_questions(old: bytes, questions: Iterable[Question]) -> bytes:
    """The content of a file of questions with the lines that it does not have yet at its end.

    What is there stays, byte for byte. Only a file into which nobody has written is made anew
    where its questions are not those of the run any more.
    """
    wanted = {
        (line["digest"], line["dimension"]): json.dumps(line, ensure_ascii=False).encode()
        for question in questions
        for line in question.lines()
    }
    found, written_into = set(), False
    for line in old.split(b"\n"):
        if line.strip():
            fields = _fields(line)
            found.add((fields.get("digest"), fields.get("dimension")))
            written_into |= not fields.keys() <= _FIELDS or not fields
    if not written_into and not found <= wanted.keys():
        old, found = b"", set()
    added = [line + b"\n" for key, line in wanted.items() if key not in found]
    ending = b"" if not (old and added) or old.endswith(b"\n") else b"\n"
    return b"".join([old, ending, *added])


def _fields(line: bytes) -> dict[str, Any]:
    """Of a line that may be anything, since people write into the file; empty for no object."""
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    keys = (fields.get("digest"), fields.get("dimension"))
    return fields if all(isinstance(key, str) for key in keys) else {}
