"""People's answers and preferences: fields of other types, cut and changed files, lost pictures."""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs_case import Case
from exchange_scale import rows

from onereward_jax.annotation.answers import read_answers
from onereward_jax.annotation.preferences_folder import read_comparisons
from onereward_jax.annotation.questions import Question
from onereward_jax.exchange.conversion import export_to, import_to
from onereward_jax.exchange.formats import FORMATS
from onereward_jax.exchange.options import Options, Source
from onereward_jax.tasks import Task

COUNT = 4
QUESTION = Question(
    triplet="train/fill-0", task=Task.FILL, prompt="a cup", dimensions=("structure",),
    image="i.png", mask="m.png", candidates=("0.png", "1.png", "2.png"), digest="0123456789abcdef",
)  # fmt: skip
ANSWER = {
    "digest": QUESTION.digest, "dimension": "structure", "best": 1, "worst": 0, "annotator": "ann",
    "triplet": QUESTION.triplet,
}  # fmt: skip
REMOVED = object()
VALUES = (
    REMOVED, None, 0, 1, 2, 3, -1, 1.0, 2.0, 1.5, math.nan, math.inf, 10**400, True, False, "", " ",
    "1", "2.0", "1e0", "nan", "x", "\ud800", [], [1], {}, {"a": 1}, "a" * 5000, "\u2028", "0x1",
    "\u0661", "1_0",
)  # fmt: skip
EXPORTED = ("folder", "parquet", "trl", "ms_swift", "huggingface")


def prepare(root: Path) -> None:
    """Writes preferences in the formats."""
    options = Options(name="prefs")
    import_to(root / "folder", Source(rows(COUNT, 16), COUNT), "made")
    for name in EXPORTED[1:]:
        source = FORMATS["folder"].read(root / "folder", options)
        export_to(root / name, name, source, "made", options)


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Answers and preferences."""
    yield from _of_answers(rng)
    yield from _of_comparisons(root / "folder", rng)
    for name in EXPORTED:
        yield from _of_files(name, root / name, rng)


def _answers(lines: bytes, folder: Path) -> list[tuple]:
    path = folder / "answers.jsonl"
    path.write_bytes(lines)
    found = read_answers(path, [QUESTION]).given
    return [(one.best, one.worst, one.usable, one.annotator) for one in found]


def _index(value: Any) -> Any:
    """What a candidate's index means: a number, None, or "bad"; "" for not answered."""
    if value is REMOVED or (isinstance(value, str) and not value.strip()):
        return ""
    if value is None:
        return None
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return "bad"
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return "bad"
    return int(number) if number in (0, 1, 2) else "bad"


def _of_answers(rng: random.Random) -> Iterator[Case]:
    line = json.dumps(ANSWER).encode()
    for field in ("best", "worst", "digest", "dimension", "annotator", "triplet", "usable"):
        for number, value in enumerate(VALUES):
            fields = dict(ANSWER)
            fields.pop(field, None)
            if value is not REMOVED:
                fields[field] = value
            name = f"{field} = {'removed' if value is REMOVED else repr(value)[:30]} ({number})"
            data = json.dumps(fields).encode() + b"\n"
            truth = functools.partial(_answer_is, field, fields)
            yield Case("records: answers", name, functools.partial(_answers, data), truth)
    for number in range(60):
        place, value = rng.randrange(len(line)), rng.randrange(256)
        data = line[:place] + bytes([value]) + line[place + 1 :]
        # Other digits and letters are other answers; those of another question do not count.
        anything = lambda: lambda found: len(found) <= 1
        yield Case(
            "records: answers", f"byte {number}", functools.partial(_answers, data), anything
        )
    for what, data in {
        "cut": line[:-5], "nested": b'{"a":' * 100_000, "a list": b"[1]",
        "utf-16": b"\xff\xfe" + line,
        "twice, alike": line + b"\n" + line, "an empty file": b"",
        "twice, different": line + b"\n" + line.replace(b'"best": 1', b'"best": 2'),
    }.items():  # fmt: skip
        good = {"twice, alike": 1, "an empty file": 0}.get(what)
        truth = None if good is None else (lambda good=good: lambda found: len(found) == good)
        yield Case("records: answers", what, functools.partial(_answers, data), truth, bool(truth))


def _answer_is(field: str, fields: dict[str, Any]) -> Callable[[list[tuple]], bool]:
    """What the answers may be if they are read."""

    def right(found: list[tuple]) -> bool:
        if field == "digest" and fields.get("digest") != QUESTION.digest:
            return not found  # about another question
        best, worst = (_index(fields.get(name, REMOVED)) for name in ("best", "worst"))
        if best == "" and worst == "":
            return not found
        if "bad" in (best, worst) or "" in (best, worst) or (best is None) != (worst is None):
            return False
        if best is not None and best == worst:
            return False
        named = fields.get("annotator") or "people"
        return found == [(best, worst, None, named.strip() if isinstance(named, str) else "")]

    return right


def _comparisons(folder: Path, change: Callable[[Path], Any], to: Path) -> list[Any]:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    change(to)
    return read_comparisons(to)


def _of_comparisons(folder: Path, rng: random.Random) -> Iterator[Case]:
    """Fields of `preferences.jsonl` and `about.json`."""
    lines = (folder / "preferences.jsonl").read_text().splitlines()
    about = json.loads((folder / "about.json").read_text())

    def case(kind: str, name: str, change: Callable[[Path], Any], truth: Any) -> Case:
        read = functools.partial(_comparisons, folder, change)
        return Case(f"records: {kind}", name, read, truth)

    def valid(found: list[Any]) -> bool:
        """Types and ranges of what was read are those of the schema."""
        return all(
            isinstance(one.prompt, str) and one.split in ("train", "test")
            and all(
                answer.best is None
                or (0 <= answer.best < len(one.candidates) and answer.best != answer.worst)
                for answer in one.answers
            )
            and all(0.5 < answer.probability <= 1 for answer in one.answers)
            and all(math.isfinite(answer.seconds) for answer in one.answers)
            for one in found
        )  # fmt: skip

    for path, _ in _leaves(json.loads(lines[0])):
        for number, value in enumerate(VALUES):
            row = json.loads(lines[0])
            _put(row, path, value)
            text = "\n".join([json.dumps(row), *lines[1:]]) + "\n"
            write = lambda to, text=text: (to / "preferences.jsonl").write_text(text)
            name = f"{'.'.join(map(str, path))} = {repr(value)[:30]} ({number})"
            yield case("preferences, fields", name, write, lambda: valid)
    for path, _ in _leaves(about):
        for number, value in enumerate(VALUES):
            other = copy.deepcopy(about)
            _put(other, path, value)
            write = lambda to, other=other: (to / "about.json").write_text(json.dumps(other))
            name = f"{'.'.join(map(str, path))} = {repr(value)[:30]} ({number})"
            yield case("preferences, about.json", name, write, lambda: valid)


def _leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from _leaves(value[0], (*path, 0))


def _put(row: Any, path: tuple, value: Any) -> None:
    place = functools.reduce(lambda part, key: part[key], path[:-1], row)
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value


def _of_files(name: str, folder: Path, rng: random.Random) -> Iterator[Case]:
    """Files of a format that are cut, changed, lost or exchanged, then imported.

    Pictures have digests in our own formats: another one cannot be taken for them.
    """
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    some = [file for file in files if not file.endswith(".md")]
    some = rng.sample(some, min(12, len(some)))
    digests = name in ("folder", "parquet", "huggingface")
    truth = functools.cache(
        lambda: _ids(folder, name, folder.parent / f"read-{os.getpid()}-{name}")
    )

    def read(to: Path, change: Callable[[Path], Any]) -> Any:
        shutil.copytree(folder, to / "x")
        change(to / "x")
        return _ids(to / "x", name, to / "y")

    def case(what: str, change: Callable[[Path], Any], free: bool = not digests) -> Case:
        anything = lambda: lambda found: True
        return Case(
            f"records: {name}", what, lambda to: read(to, change), anything if free else truth
        )

    for file in some:
        size = (folder / file).stat().st_size
        for _ in range(3):
            place = rng.randrange(max(1, size - 1))
            cut = lambda to, file=file, place=place: _rewrite(to / file, lambda d: d[:place])
            yield case(f"{file} cut at {place}", cut)
        for _ in range(4):
            place, value = rng.randrange(size), rng.randrange(256)
            flip = lambda to, file=file, place=place, value=value: _rewrite(
                to / file, lambda d: d[:place] + bytes([value]) + d[place + 1 :]
            )
            # Text may say something else: only pictures and tables have checksums.
            free = not digests or file.endswith((".jsonl", ".json", ".yaml"))
            yield case(f"{file}, {place} = {value}", flip, free or file.endswith(".parquet"))
        # Of several tables, one may be lost or there twice.
        alone = not digests or (name == "huggingface" and file.endswith(".parquet"))
        yield case(f"{file} lost", lambda to, file=file: (to / file).unlink(), alone)
        yield case(f"{file} empty", lambda to, file=file: (to / file).write_bytes(b""))
        other = rng.choice(files)
        if Path(other).suffix == Path(file).suffix and other != file:
            swap = lambda to, file=file, other=other: shutil.copy(to / other, to / file)
            yield case(f"{file} is {other}", swap, alone)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _ids(folder: Path, name: str, to: Path) -> Any:
    """What an import has: its comparisons, without what the format does not hold."""
    import_to(to, FORMATS[name].read(folder, Options()), str(folder))
    found = read_comparisons(to)
    keys = [
        (one.task, one.prompt, [each.picture.pixels for each in one.candidates], len(one.answers))
        for one in found
    ]
    return sorted(keys, key=repr)
