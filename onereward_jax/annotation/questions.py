"""Questions to people and their answers, as JSON lines for any annotation tool.

A question is one line of `questions.jsonl` (wrapped here):

    {"triplet": "train/fill-0a1b2c3d",      name of the triplet
     "dimension": "structure",              what to judge; one line per dimension of the task
     "digest": "9c1185a5c5e9fc54",          digest of task, prompt and all pixels below
     "task": "fill", "prompt": "a red apple",
     "image": "train/fill-0a1b2c3d/image-5feceb66.png",      paths relative to this file
     "mask": "train/fill-0a1b2c3d/mask-5feceb66.png",        white: edit here
     "candidates": ["train/fill-0a1b2c3d/0-6b86b273.png", ...]}

An answer is a line with at least `dimension` and `digest`, and

    "best", "worst"   candidate indices, from 0; or both null if they do not differ (the paper's ∅).
                      Both missing or "": not answered
    "usable"          instead of both, for a question with one candidate: true or false
    "annotator"       name of the annotator; default: "people", or the file's name in a folder

A question has three or more candidates (best and worst), two (a blinded comparison of editors,
where null for both is Same), or one (is this result usable?).

e.g. {"dimension": "structure", "digest": "9c1185a5c5e9fc54", "best": 2, "worst": 0}. The other
fields of the question are optional. Indices may be written as 2, 2.0 or "2". A question may have
multiple lines with answers of different annotators, one per annotator. Only a line feed ends a
line.

Answers may be written into `questions.jsonl` itself: once it has an answer, it is only appended to.
`answers.read_answers` reads them.
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

OVERALL = "overall"
"""The `dimension` of a comparison of two results as a whole."""

USABLE = "usable"
"""The `dimension` of the only question about a single result."""


@dataclasses.dataclass(frozen=True)
class Question:
    """The questions about a triplet, one per dimension.

    Attributes:
      triplet: its name.
      task, prompt: the edit.
      dimensions: dimensions to judge.
      image, mask: paths of the source image and its mask.
      candidates: paths of the candidates, by index; a single one if `dimensions` is `USABLE`.
      digest: digest of everything except the dimensions, see `picture_digests.question_digest`.
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
        """The lines of the file, one per dimension."""
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
    """Appends the lines that the file does not have yet; returns how many. See `with_questions`."""
    old = path.read_bytes() if path.exists() else b""
    new = with_questions(old, questions)
    if new == old:
        return 0
    with atomic_file(path, sync=True) as draft:
        draft.write_bytes(new)
    return new.removeprefix(old).lstrip(b"\n").count(b"\n")


def with_questions(old: bytes, questions: Iterable[Question]) -> bytes:
    """The content of a questions file with missing lines appended.

    Existing content is kept byte for byte. Only a file without answers is rewritten, if it has
    questions that are not in `questions`.
    """
    expected = {
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
    if not written_into and not found <= expected.keys():
        old, found = b"", set()
    added = [line + b"\n" for key, line in expected.items() if key not in found]
    ending = b"" if not (old and added) or old.endswith(b"\n") else b"\n"
    return b"".join([old, ending, *added])


def _fields(line: bytes) -> dict[str, Any]:
    """The fields of a line; {} if it is not a question or answer (people edit the file)."""
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    keys = (fields.get("digest"), fields.get("dimension"))
    return fields if all(isinstance(key, str) for key in keys) else {}
