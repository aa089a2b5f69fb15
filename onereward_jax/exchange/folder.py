"""The preferences folder itself, read and written; its schema is in `annotation.comparisons`."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onereward_jax import __version__
from onereward_jax.annotation.comparisons import (
    ABOUT,
    LINES,
    VERSION,
    Comparison,
    Judgement,
    parse_line,
)
from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, Rows
from onereward_jax.annotation.given_pictures import GivenPicture, picture_in
from onereward_jax.annotation.preferences_folder import comparison_lines, read_about
from onereward_jax.data.example import RowError
from onereward_jax.exchange.loading import Errors
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.source_splits import SourceSplits


@dataclasses.dataclass(frozen=True)
class Written:
    """What a folder got.

    Attributes:
      counts: the counts in its `about.json`.
      repeated: number of answers that were there more than once.
      joined: number of rows that were joined with another one of the same pictures.
    """

    counts: Mapping[str, Any]
    repeated: int
    joined: int


def read(path: pathlib.Path, options: Options) -> Source:
    """The comparisons of a preferences folder.

    Raises:
      FileNotFoundError, ValueError: as `read_about`.
    """
    about = read_about(path)
    with (path / LINES).open("rb") as file:
        total = sum(1 for line in file if line.strip())
    origin = about.get("origin")
    return Source(
        _rows(path),
        total,
        license=str(about.get("license", "")),
        origin=origin if isinstance(origin, dict) else {},
    )


def _rows(folder: pathlib.Path) -> Rows:
    for number, one in comparison_lines(folder):
        place = f"line {number}"
        try:
            yield Row(place, one if isinstance(one, RowError) else given_in(folder, one))
        except RowError as error:
            yield Row(place, error)


def given_in(folder: pathlib.Path, one: Comparison) -> Given:
    """A comparison of a folder as a given one, with pictures that are read on demand."""

    def picture(field: str, path: str) -> GivenPicture:
        return picture_in(folder, field, path)

    places = [("image", one.image), ("mask", one.mask)]
    places += [(place, each.picture) for place, each in enumerate(one.candidates)]
    return Given(
        task=one.task,
        prompt=one.prompt,
        split=one.split,
        id=one.id,
        source=one.source,
        image=one.image and picture("image", one.image.path),
        mask=one.mask and picture("mask", one.mask.path),
        candidates=tuple(
            picture(f"candidates[{place}]", each.picture.path)
            for place, each in enumerate(one.candidates)
        ),
        models=tuple(each.model for each in one.candidates),
        settings=tuple(each.settings for each in one.candidates),
        answers=one.answers,
        expected={place: picture.digest for place, picture in places if picture},
    )


class FolderWriter:
    """Writes a preferences folder in two passes, so that memory does not grow with the pictures.

    `add` stores pictures and appends comparisons to a draft of the lines; `finish` joins lines of
    the same comparison, draws missing splits and writes the lines.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._draft_path = folder / f".{LINES}"
        self._draft = self._draft_path.open("wb")
        self._places: dict[str, list[tuple[int, str]]] = {}
        self._splits = SourceSplits()
        self._pictures: set[str] = set()

    def add(self, place: str, one: Loaded) -> None:
        """Adds a comparison; `place` is its row in the file that it comes from."""
        for path, content in one.contents.items():
            self._store(path, content)
        comparison = one.comparison
        self._splits.add(comparison, place)
        where = (self._draft.tell(), place)
        self._places.setdefault(comparison.id, []).append(where)
        self._draft.write(comparison.to_line().encode() + b"\n")

    def finish(
        self, errors: Errors, *, license: str, origin: Mapping[str, Any], skip: bool = False
    ) -> Written:
        """Writes lines and `about.json`.

        Args:
          errors: gets comparisons and answers that contradict each other.
          license, origin: for `about.json`.
          skip: leave out bad rows instead of refusing them.

        Raises:
          ValueError: there are bad rows and they are not left out; a source picture is in both
            splits; or nothing is left.
        """
        self._draft.close()
        if not skip:
            errors.refuse()
        if not self._places:
            errors.refuse()
            raise ValueError(f"{errors.where} has no comparisons")
        self._splits.settle(errors.where)
        counts, repeated = _Counts(), 0
        with (
            self._draft_path.open("rb") as draft,
            (self._folder / LINES).open("w", encoding="utf-8", newline="\n") as lines,
        ):
            for places in self._places.values():
                comparison, again = _joined(draft, places, errors)
                repeated += again
                comparison = dataclasses.replace(comparison, split=self._splits.of(comparison))
                counts.add(comparison)
                lines.write(comparison.to_line() + "\n")
            if not skip:
                errors.refuse()
            lines.flush()
            os.fsync(lines.fileno())
        self._draft_path.unlink()
        about = {
            "schema": VERSION,
            "written_by": f"onereward_jax {__version__}",
            "license": license,
            "origin": dict(origin),
            "counts": counts.to_dict(len(self._pictures)),
        }
        text = json.dumps(about, indent=1, ensure_ascii=False)
        (self._folder / ABOUT).write_text(text, encoding="utf-8")
        joined = sum(len(places) - 1 for places in self._places.values())
        return Written(about["counts"], repeated, joined)

    def _store(self, path: str, content: bytes) -> None:
        if path in self._pictures:
            return
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._pictures.add(path)


def _joined(
    draft: Any, places: Iterable[tuple[int, str]], errors: Errors
) -> tuple[Comparison, int]:
    """The comparison of these lines with the answers of all, and the number of repeated answers."""
    first: Comparison | None = None
    answers: dict[tuple[str, str], tuple[Judgement, str]] = {}
    repeated = 0
    for offset, place in places:
        draft.seek(offset)
        one = parse_line(draft.readline().decode())
        first = first or one
        if dataclasses.replace(one, answers=(), split=None) != dataclasses.replace(
            first, answers=(), split=None
        ):
            errors.add(place, RowError(f"id {one.id!r} is that of another comparison"))
            continue
        for answer in one.answers:
            key = (answer.dimension, answer.annotator)
            known, where = answers.setdefault(key, (answer, place))
            if known is answer:
                continue
            repeated += 1
            if said(known) != said(answer):
                errors.add(
                    place,
                    RowError(
                        f"{answer.annotator!r} gave a different answer about {answer.dimension} "
                        f"of the same candidates in {where}"
                    ),
                )
    return dataclasses.replace(first, answers=tuple(one for one, _ in answers.values())), repeated


def said(answer: Judgement) -> tuple[int | None, int | None, float]:
    """What an answer says, without who said it when."""
    return answer.best, answer.worst, answer.probability


class _Counts:
    """Counts for `about.json`."""

    def __init__(self) -> None:
        self._counts: collections.Counter = collections.Counter()
        self._cells: dict[str, collections.Counter] = {}
        self._annotators: set[str] = set()
        self._sources: set[str] = set()

    def add(self, one: Comparison) -> None:
        self._counts["comparisons"] += 1
        self._counts[one.split] += 1
        if one.source:
            self._sources.add(one.source)
        for answer in one.answers:
            self._counts["answers"] += 1
            self._counts["undecided"] += answer.best is None
            self._annotators.add(answer.annotator)
            cell = self._cells.setdefault(one.task, collections.Counter())
            cell[answer.dimension.value] += 1

    def to_dict(self, pictures: int) -> dict[str, Any]:
        names = ("comparisons", "train", "test", "answers", "undecided")
        return {name: self._counts[name] for name in names} | {
            "annotators": len(self._annotators),
            "sources": len(self._sources),
            "pictures": pictures,
            "answers_by_task": {task.value: dict(cell) for task, cell in self._cells.items()},
        }


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes a folder from loaded rows without errors."""
    writer, errors = FolderWriter(folder), Errors(str(folder))
    for place, one in rows:
        writer.add(place, one)
    writer.finish(errors, license=source.license, origin=source.origin)
