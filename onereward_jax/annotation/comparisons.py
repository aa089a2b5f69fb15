"""The schema of a preferences folder: comparisons, their pictures and people's answers.

    about.json          schema version, licence, origin, counts
    preferences.jsonl   one line per comparison
    pictures/           every picture once, named by its digest, as it was given

A comparison is one edit with the candidates that were compared (wrapped here):

    {"id": "train/fill-0a1b2c3d",       unique in the folder
     "task": "fill", "prompt": "a red apple",
     "split": "train",                  or "test"; equal for all comparisons of a source picture
     "source": "5feceb66ffc86f38",      id of the source picture; "" if it is not known
     "image": PICTURE, "mask": PICTURE, source image and its mask (white: edit here), or null
     "candidates": [PICTURE with
        "model": "flux_fill",           what made it; "" if it is not known
        "settings": {"num_inference_steps": 30, ...}}],     of sampling, any JSON object
     "answers": [
       {"dimension": "structure",       a dimension of the task
        "best": 2, "worst": 0,          candidate indices, or both null: they do not differ (∅)
        "probability": 1.0,             P(best is preferred to worst), in (0.5, 1]; 1.0 for ∅
        "annotator": "ann",
        "answered_at": 1764000000.0,    Unix time in seconds; 0 if it is not known
        "seconds": 4.2}]}               spent on the answer; 0 if it is not known

    PICTURE = {"path": "pictures/5f/5feceb66….png",     relative to the folder
               "digest": "5feceb66…",   of the file: SHA-256, 32 hexadecimal digits
               "pixels": "9c1185a5c5e9fc54",    of the upright RGB pixels or the binary mask,
               "width": 512, "height": 512}     see `picture_digests`

`best` and `worst` leave the others between them. A pair has two candidates.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.json_lines import json_object
from onereward_jax.data.example import SPLITS, RowError, Split
from onereward_jax.data.picture_paths import check_inside
from onereward_jax.tasks import DIMENSIONS, Dimension, Task, dimension_named, task_named

LINES, ABOUT, PICTURES = "preferences.jsonl", "about.json", "pictures"

VERSION = 1
"""Schema version in `about.json`."""

DIGEST_DIGITS, PIXEL_DIGITS = 32, 16


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the folder; see the module docstring."""

    path: str
    digest: str
    pixels: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class ComparedPicture:
    """A candidate: its picture, what made it, and with which settings."""

    picture: Picture
    model: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's answer about a comparison in one dimension.

    `best` and `worst` are candidate indices, both None if they do not differ (∅). `probability` in
    (0.5, 1] is P(best is preferred to worst). `answered_at` is Unix time and `seconds` the time
    spent, both 0 if unknown.
    """

    dimension: Dimension
    best: int | None
    worst: int | None
    annotator: str
    probability: float = 1.0
    answered_at: float = 0.0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A line of the folder; see the module docstring.

    `candidates` are at least two. `split` is always set in a folder.
    """

    id: str
    task: Task
    prompt: str
    split: Split | None
    source: str
    image: Picture | None
    mask: Picture | None
    candidates: tuple[ComparedPicture, ...]
    answers: tuple[Judgement, ...]

    def pictures(self) -> tuple[Picture, ...]:
        """All pictures: image, mask, candidates."""
        own = (self.image, self.mask, *(one.picture for one in self.candidates))
        return tuple(one for one in own if one is not None)

    def to_line(self) -> str:
        """The line of `preferences.jsonl`, without the line feed."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the line."""
        fields = dataclasses.asdict(self)
        fields["candidates"] = [
            one.pop("picture") | {"model": one["model"], "settings": one["settings"]}
            for one in fields["candidates"]
        ]
        return fields


def check_judgement(answer: Judgement, task: Task, count: int) -> None:
    """Raises RowError if an answer does not fit a task, or the number of candidates."""
    if answer.dimension not in DIMENSIONS[task]:
        raise RowError(
            f"dimension {answer.dimension.value!r} is not a dimension of {task.title}: "
            + ", ".join(DIMENSIONS[task])
        )
    if (answer.best is None) != (answer.worst is None):
        raise RowError("best and worst must both be given, or both be null (no difference)")
    for name, value in (("best", answer.best), ("worst", answer.worst)):
        if value is not None and value not in range(count):
            raise RowError(f"{name} must be from 0 to {count - 1} or null, found {value}")
    if answer.best is not None and answer.best == answer.worst:
        raise RowError(f"best and worst are both candidate {answer.best}")
    if not 0.5 < answer.probability <= 1.0:
        raise RowError(f"probability must be in (0.5, 1], found {answer.probability}")
    if not answer.annotator.strip():
        raise RowError("annotator is empty")


def parse_line(line: str | bytes) -> Comparison:
    """The comparison of a line of `preferences.jsonl`.

    Raises:
      RowError: naming the field.
    """
    try:
        fields = json_object(line)
    except ValueError as error:
        raise RowError(str(error)) from error
    return from_dict(fields)


def from_dict(fields: Any) -> Comparison:
    """The comparison of a JSON object; raises RowError, naming the field."""
    _check_fields("", fields, (field.name for field in dataclasses.fields(Comparison)))
    candidates = _list("candidates", fields["candidates"])
    if len(candidates) < 2:
        raise RowError(f"candidates must be two or more, found {len(candidates)}")
    split, task = fields["split"], named(Task, "task", fields["task"], str(fields["prompt"]))
    if split not in (*SPLITS, None):
        raise RowError(f'split must be "train", "test" or null, found {split!r}')
    answers = tuple(
        _judgement(f"answers[{place}]", one)
        for place, one in enumerate(_list("answers", fields["answers"]))
    )
    for place, answer in enumerate(answers):
        try:
            check_judgement(answer, task, len(candidates))
        except RowError as error:
            raise RowError(f"answers[{place}]: {error}") from None
    return Comparison(
        id=text("id", fields["id"]),
        task=task,
        prompt=text("prompt", fields["prompt"], empty=True),
        split=split,
        source=text("source", fields["source"], empty=True),
        image=_optional_picture("image", fields["image"]),
        mask=_optional_picture("mask", fields["mask"]),
        candidates=tuple(
            _candidate(f"candidates[{place}]", one) for place, one in enumerate(candidates)
        ),
        answers=answers,
    )


def named(kind: type, field: str, value: Any, prompt: str = "") -> Any:
    """The `Task` or `Dimension` of a name; raises RowError, naming the field.

    Args:
      kind: which of the two.
      field: the field.
      value: the name, in any of the spellings of `tasks.task_named`.
      prompt: prompt of the edit, for the task "extend".
    """
    try:
        if not isinstance(value, str):
            raise ValueError
        return task_named(value, prompt) if kind is Task else dimension_named(value)
    except ValueError:
        raise RowError(f"{field} {value!r} is unknown; there are {', '.join(kind)}") from None


def text(field: str, value: Any, *, empty: bool = False) -> str:
    """Checks that a field is a string that can be stored; raises RowError, naming the field."""
    if not isinstance(value, str) or not (value.strip() or empty):
        wanted = "a string" if empty else "a non-empty string"
        raise RowError(f"{field} must be {wanted}, found {_shown(value)}")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in value):
        raise RowError(f"{field} has a lone surrogate or a null: {_shown(value)}")
    return value


def number(field: str, value: Any) -> float:
    """Checks that a field is a finite number of at least 0; raises RowError, naming the field."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{field} must be a number, found {_shown(value)}")
    if not 0 <= value <= sys.float_info.max:
        raise RowError(f"{field} must be a finite number, at least 0, found {value}")
    return float(value)


def _index(field: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise RowError(f"{field} must be the number of a candidate or null, found {_shown(value)}")


def _judgement(where: str, fields: Any) -> Judgement:
    _check_fields(where, fields, (field.name for field in dataclasses.fields(Judgement)))
    return Judgement(
        dimension=named(Dimension, f"{where}.dimension", fields["dimension"]),
        best=_index(f"{where}.best", fields["best"]),
        worst=_index(f"{where}.worst", fields["worst"]),
        annotator=text(f"{where}.annotator", fields["annotator"]),
        **{
            name: number(f"{where}.{name}", fields[name])
            for name in ("probability", "answered_at", "seconds")
        },
    )


def _candidate(where: str, fields: Any) -> ComparedPicture:
    own = ("model", "settings")
    names = (*(field.name for field in dataclasses.fields(Picture)), *own)
    _check_fields(where, fields, names)
    if not isinstance(fields["settings"], dict):
        raise RowError(f"{where}.settings must be an object, found {_shown(fields['settings'])}")
    return ComparedPicture(
        _picture(where, {name: fields[name] for name in names if name not in own}),
        text(f"{where}.model", fields["model"], empty=True),
        fields["settings"],
    )


def _optional_picture(field: str, fields: Any) -> Picture | None:
    return None if fields is None else _picture(field, fields)


def _picture(where: str, fields: Any) -> Picture:
    _check_fields(where, fields, (field.name for field in dataclasses.fields(Picture)))
    path = text(f"{where}.path", fields["path"])
    check_inside(f"{where}.path", path)
    for name, digits in (("digest", DIGEST_DIGITS), ("pixels", PIXEL_DIGITS)):
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(fields[name])):
            wanted = f"{digits} hexadecimal digits"
            raise RowError(f"{where}.{name} must be {wanted}, found {_shown(fields[name])}")
    for name in ("width", "height"):
        if type(fields[name]) is not int or fields[name] < 1:
            raise RowError(f"{where}.{name} must be an integer > 0, found {_shown(fields[name])}")
    return Picture(path, *(fields[name] for name in ("digest", "pixels", "width", "height")))


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{field} must be a list, found {_shown(value)}")
    return value


def _check_fields(where: str, fields: Any, names: Any) -> None:
    names, what = tuple(names), f"{where}: " if where else ""
    if not isinstance(fields, dict):
        raise RowError(f"{what}not a JSON object: {_shown(fields)}")
    for name in names:
        if name not in fields:
            raise RowError(f"{what}{name} is missing")
    if unknown := sorted(fields.keys() - set(names)):
        raise RowError(f"{what}unknown field {unknown[0]!r}; there are {', '.join(names)}")


def _shown(value: Any) -> str:
    """A value in a message, shortened."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
