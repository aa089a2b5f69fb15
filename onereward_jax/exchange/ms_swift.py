"""Pairs as ms-swift reads them: JSON lines with messages, and pictures in files.

`dpo-<split>.jsonl`, for DPO or a reward model of the judge's answer:

    {"messages": [{"role": "user", "content": "<image><image>… Is the first image better …?"},
                  {"role": "assistant", "content": "Yes"}],
     "rejected_response": "No", "images": ["pictures/…", "pictures/…"], "preference": {…}}

`rm-<split>.jsonl`, for a reward model of single edits (`rejected_images`, ms-swift >= 3.8):

    {"messages": [{"role": "user", "content": "<image>image fill, judged by aesthetics: an apple"},
                  {"role": "assistant", "content": "<image>"}],
     "images": [source image, best edit], "rejected_images": [source image, worst edit],
     "preference": {…}}

Paths are relative to the folder: set ROOT_IMAGE_DIR to it. `preference` says what a row was made
from; ms-swift ignores it. Undecided answers and settings are left out.

https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from onereward_jax.annotation.comparisons import text
from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, Rows
from onereward_jax.annotation.given_pictures import picture_in
from onereward_jax.data.example import SPLITS, RowError
from onereward_jax.exchange.about import read_about_beside, write_about
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.pair_questions import (
    answers,
    chosen_first,
    given_pair,
    origin_of,
    question,
)
from onereward_jax.exchange.pairs import Pair, pairs_of
from onereward_jax.exchange.record_files import Records, open_records

ANNOTATOR = "ms_swift"
IMAGE = "<image>"
_TAGS = re.compile("<(image|video|audio|bbox|ref-object|start-image|cot-process)>")
"""What ms-swift replaces in a text; one too many and it refuses the row."""


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes the JSON lines, `pictures/` and `about.json`."""
    names = [(kind, split) for kind in ("dpo", "rm") for split in SPLITS]
    paths = {name: folder / f"{name[0]}-{name[1]}.jsonl" for name in names}
    files = {name: path.open("w", encoding="utf-8") for name, path in paths.items()}
    count = 0
    try:
        for _, one in rows:
            split = one.comparison.split or "train"
            for pair in pairs_of(one.comparison):
                count += 1
                source_path = [one.comparison.image.path] if one.comparison.image else []
                for path in (pair.first.path, pair.second.path, *source_path):
                    _store(folder / path, one.contents[path])
                for kind, row in (("dpo", _question(pair)), ("rm", _single(pair, source_path))):
                    row["preference"] = origin_of(pair)
                    files[kind, split].write(json.dumps(row, ensure_ascii=False) + "\n")
    finally:
        for file in files.values():
            file.close()
    if not count:
        raise ValueError("there is no decided answer to write as a pair")
    for path in paths.values():
        if not path.stat().st_size:
            path.unlink()
    write_about(folder, source)


def _store(path: pathlib.Path, content: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _question(pair: Pair) -> dict[str, Any]:
    chosen, rejected = answers(pair)
    return {
        "messages": [
            {"role": "user", "content": 2 * IMAGE + _without_tags(question(pair))},
            {"role": "assistant", "content": chosen},
        ],
        "rejected_response": rejected,
        "images": [pair.first.path, pair.second.path],
    }


def _without_tags(words: str) -> str:
    """Words of a prompt, `<image>` as `image`; the field `preference` has the prompt as it is."""
    return _TAGS.sub(r"\1", words)


def _single(pair: Pair, source: list[str]) -> dict[str, Any]:
    best, worst = (
        (pair.first.path, pair.second.path)
        if pair.first_is_better
        else (pair.second.path, pair.first.path)
    )
    comparison, dimension = pair.comparison, pair.answer.dimension
    asked = f"{comparison.task.title}, judged by {dimension.title}: {comparison.prompt}"
    return {
        "messages": [
            {"role": "user", "content": len(source) * IMAGE + _without_tags(asked)},
            {"role": "assistant", "content": IMAGE},
        ],
        "images": [*source, best],
        "rejected_images": [*source, worst],
    }


def read(path: pathlib.Path, options: Options) -> Source:
    """The pairs of a file, or of the files `dpo-*.jsonl` of a folder; raises as `open_records`.

    Raises:
      FileNotFoundError: the folder has no such file.
    """
    files = sorted(path.glob("dpo-*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: there is no file dpo-*.jsonl")
    opened = [open_records(file) for file in files]
    folder = options.pictures or (path if path.is_dir() else path.parent)
    rows = itertools.chain.from_iterable(
        _rows(file.name if len(files) > 1 else "", records, folder, options)
        for file, (records, _) in zip(files, opened)
    )
    about = read_about_beside(path)
    total = sum(count for _, count in opened)
    return Source((row for row in rows), total, about.license, about.origin)


def _rows(name: str, records: Records, folder: pathlib.Path, options: Options) -> Rows:
    for place, record in records:
        place = f"{name}, {place}" if name else place
        try:
            if isinstance(record, RowError):
                raise record
            yield Row(place, _given(record, folder, options))
        except RowError as error:
            yield Row(place, error)


def _given(row: dict[str, Any], folder: pathlib.Path, options: Options) -> Given:
    origin = row.get("preference") or {}
    if not isinstance(origin, dict):
        raise RowError("preference must be an object")
    messages = row.get("messages")
    if (
        not isinstance(messages, list)
        or len(messages) < 2
        or not all(isinstance(one, dict) for one in messages)
    ):
        raise RowError("messages must be a list of two messages or more")
    images = _paths("images", row.get("images"))
    if "rejected_images" in row:
        rejected = _paths("rejected_images", row["rejected_images"])
        asked = text("messages[-2].content", messages[-2].get("content"), empty=True)
        origin = {"edit_prompt": asked.replace(IMAGE, "").strip()} | origin
        paths, first_is_better = (images[-1], rejected[-1]), True
    else:
        if len(images) != 2:
            raise RowError(f"images must be two paths, found {len(images)}")
        chosen = text("messages[-1].content", messages[-1].get("content"))
        said = chosen_first(chosen, text("rejected_response", row.get("rejected_response")))
        paths, first_is_better = (images[0], images[1]), said
    first, second = (picture_in(folder, "images", path) for path in paths)
    return given_pair(origin, (first, second), first_is_better, options, ANNOTATOR)


def _paths(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise RowError(f"{field} must be a list of paths")
    return [text(f"{field}[{place}]", one) for place, one in enumerate(value)]
