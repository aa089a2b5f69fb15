"""Reads people's answers; see `questions` for the format."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onereward_jax.annotation.questions import USABLE, Question
from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.common.listing import first_of, listed
from onereward_jax.tasks import plain_name

ANNOTATOR = "people"
"""Annotator of lines that do not name one."""

_FIELDS = ("digest", "triplet", "dimension", "best", "worst", "usable", "annotator")
"""Fields that are read from a line."""

BOTH = "give both, or null twice where the candidates do not differ"

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Values of `usable`, as annotation tools write them."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An annotator's answer to a question in one dimension.

    `digest` is the question's. `best` and `worst` are candidate indices, both None if they do not
    differ; `usable` is None except for a question about a single result. `answered_at` is the
    modification time of the file, Unix time in seconds. `place` is (file, line number). `seconds`
    is the time spent on the answer, 0 if it is not known.
    """

    digest: str
    triplet: str
    dimension: str
    best: int | None
    worst: int | None
    usable: bool | None
    annotator: str
    answered_at: float
    place: tuple[Path, int]
    seconds: float = 0.0

    @property
    def said(self) -> tuple[int | None, int | None, bool | None]:
        """What was answered, without who, when and where."""
        return self.best, self.worst, self.usable


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of a file or a folder.

    Attributes:
      given: answers to questions of this run.
      elsewhere: lines with answers about other images.
    """

    given: tuple[Answer, ...]
    elsewhere: tuple[tuple[Path, int], ...]

    @property
    def answered(self) -> int:
        """Number of questions with at least one answer."""
        return len({(one.digest, one.dimension) for one in self.given})

    def about_elsewhere(self) -> str:
        """A message about the answers to other images; "" if there are none."""
        if not self.elsewhere:
            return ""
        many = len(self.elsewhere) > 1
        return (
            f"{len(self.elsewhere)} answer{'s are' if many else ' is'} about other images than "
            f"those of this run ({_places(self.elsewhere)}): images or rows have changed; such "
            "answers are kept, and count again if their images return"
        )


def answer_files(source: Path) -> list[Path]:
    """The file itself, or all *.jsonl of a folder; empty if nothing exists yet."""
    if source.is_dir():
        return sorted(path for path in source.glob("*.jsonl") if not path.name.startswith("."))
    return [source] if source.exists() else []


def read_answers(source: Path, questions: Sequence[Question]) -> Answers:
    """Reads the answers in a file or in the files of a folder.

    Answers about other images than those of `questions` are returned separately, not refused: a
    file of answers grows over a whole project, while candidates change.

    Args:
      source: a file, or a folder with one *.jsonl per annotator.
      questions: the questions of this run.

    Raises:
      ValueError: listing all bad lines, each with the reason.
    """
    asked = {question.digest: question for question in questions}
    found: dict[tuple[str, str, str], Answer] = {}
    elsewhere, errors = [], []
    files = answer_files(source)
    for path in files:
        annotator = path.stem if source.is_dir() else ANNOTATOR
        for number, line in json_lines(path):
            place = (path, number)
            try:
                fields = _object(line)
                if fields is None:
                    continue
                if _digest(fields) not in asked:
                    elsewhere.append(place)
                    continue
                answer = _answer(fields, asked[fields["digest"]], annotator, place)
                key = (answer.annotator, answer.digest, answer.dimension)
                _require_alike(found.setdefault(key, answer), answer)
            except ValueError as error:
                where = f"{path.name}, line {number}" if source.is_dir() else f"line {number}"
                errors.append(f"{where}: {error}")
    if errors:
        told = f"{source}: {len(errors)} bad answer{'s' * (len(errors) > 1)}"
        raise ValueError(told + listed(errors))
    return Answers(tuple(found.values()), tuple(elsewhere))


def what_is_said(source: Path) -> Iterator[str]:
    """The relevant fields of each answered line, as JSON; unreadable lines unchanged.

    Args:
      source: as in `read_answers`.
    """
    for path in answer_files(source):
        for _, line in json_lines(path):
            try:
                fields = _object(line)
            except ValueError:
                yield repr(line.strip())
                continue
            if fields is not None:
                said = {name: fields[name] for name in _FIELDS if name in fields}
                # In a folder, the name of the file is the default annotator.
                said.setdefault("annotator", path.stem if source.is_dir() else ANNOTATOR)
                yield json.dumps(said, sort_keys=True)


def _object(line: bytes) -> dict[str, Any] | None:
    """The fields of a line; None if it has no answer. Raises ValueError."""
    fields = json_object(line)
    if _says_usable(fields):
        return fields
    given = {name for name in ("best", "worst") if not _is_empty(fields.get(name, ""))}
    if not given:
        return None
    if len(given) == 1 or (fields["best"] is None) != (fields["worst"] is None):
        there = {name for name in given if fields[name] is not None} or given
        (name,) = there
        raise ValueError(f"{name} is given without {'worst' if name == 'best' else 'best'}: {BOTH}")
    return fields


def _is_empty(value: Any) -> bool:
    """Whether an annotation tool left the value empty."""
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, str) and not value.strip()


def _says_usable(fields: Mapping[str, Any]) -> bool:
    return fields.get("usable") is not None and not _is_empty(fields["usable"])


def _digest(fields: Mapping[str, Any]) -> str:
    digest = fields.get("digest")
    if not isinstance(digest, str) or not digest:
        raise ValueError("digest is missing: copy it from the question, it identifies the images")
    return digest


def _answer(
    fields: Mapping[str, Any], question: Question, annotator: str, place: tuple[Path, int]
) -> Answer:
    """The answer in a line, to a question of this run. Raises ValueError."""
    if fields.get("triplet", question.triplet) != question.triplet:
        raise ValueError(
            f"triplet is {fields['triplet']!r}, but digest belongs to {question.triplet!r}"
        )
    if "dimension" not in fields:
        raise ValueError("dimension is missing")
    dimension = plain_name(str(fields["dimension"]))
    if dimension not in question.dimensions:
        raise ValueError(
            f"dimension {fields['dimension']!r} is not a dimension of {question.task.title}: "
            f"{', '.join(question.dimensions)}"
        )
    annotator = fields.get("annotator") or annotator
    if not isinstance(annotator, str) or not annotator.strip():
        raise ValueError(f"annotator must be a name, found {annotator!r}")
    best = worst = usable = None
    if dimension == USABLE:
        usable = _usable(fields)
    elif _says_usable(fields):
        raise ValueError(f"usable is given for {fields['dimension']}: give best and worst")
    else:
        best, worst = (_number(name, fields[name], question) for name in ("best", "worst"))
        if best is not None and best == worst:
            raise ValueError(f"best and worst are both candidate {best}: {BOTH}")
    return Answer(
        question.digest,
        question.triplet,
        dimension,
        best,
        worst,
        usable,
        annotator.strip(),
        place[0].stat().st_mtime,
        place,
    )


def _usable(fields: Mapping[str, Any]) -> bool:
    """The answer about a single result. Raises ValueError."""
    value = fields.get("usable")
    found = _WORDS.get(str(value).strip().lower().removesuffix(".0"))
    if found is None:
        raise ValueError(f"usable must be true or false, found {value!r}")
    return found


def _number(name: str, value: Any, question: Question) -> int | None:
    """A candidate's index; accepts 2, 2.0 and "2", as spreadsheets write it. Raises ValueError."""
    last, number = len(question.candidates) - 1, value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    elif value is None:
        return None
    if isinstance(number, bool) or number not in range(last + 1):
        raise ValueError(f"{name} must be a number from 0 to {last} or null, found {value!r}")
    return int(number)


def _require_alike(first: Answer, second: Answer) -> None:
    """Raises ValueError if an annotator gives two different answers."""
    if first.said != second.said:
        path, number = first.place
        where = f"line {number}" if path == second.place[0] else f"{path.name}, line {number}"
        raise ValueError(
            f"{second.annotator!r} gave a different answer in {where}: "
            f"{_in_words(first)} there, {_in_words(second)} here"
        )


def _in_words(answer: Answer) -> str:
    if answer.usable is not None:
        return "usable" if answer.usable else "not usable"
    pair = (answer.best, answer.worst)
    best, worst = ("null" if one is None else one for one in pair)
    return f"best {best} and worst {worst}"


def _places(places: Sequence[tuple[Path, int]]) -> str:
    """Formats lines as "a.jsonl, lines 3-7, 9; b.jsonl, line 1"."""
    of_file: dict[Path, list[int]] = collections.defaultdict(list)
    for path, number in places:
        of_file[path].append(number)
    named = []
    for path, numbers in of_file.items():
        runs = []
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            first, *others = [number for _, number in run]
            runs.append(f"{first}-{others[-1]}" if others else str(first))
        word = "lines" if len(numbers) > 1 else "line"
        named.append(f"{path.name}, {word} {', '.join(first_of(runs))}")
    return "; ".join(first_of(named))
