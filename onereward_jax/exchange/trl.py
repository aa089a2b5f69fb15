"""Pairs as TRL reads them: a preference data set with images, as a Hugging Face folder.

It has an explicit prompt, for `DPOTrainer` with a vision-language model:

    images      the two edited images
    prompt      [{"role": "user", "content": [{"type": "image"}, {"type": "image"},
                {"type": "text", "text": "… Is the first image better than the second? …"}]}]
    chosen      [{"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}]
    rejected    the same with "No"

Which image comes first is drawn by the content, so that "Yes" is no better a guess than "No".
Undecided answers, source images and settings are left out. The other columns say what a row was
made from. Rows with an implicit prompt (`chosen` and `rejected` are whole conversations) are read,
not written: TRL's `RewardTrainer` leaves out the images, and `DPOTrainer` asks for `prompt`.

https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, Rows
from onereward_jax.annotation.given_pictures import picture_in
from onereward_jax.data.example import SPLITS, RowError
from onereward_jax.exchange import parquet
from onereward_jax.exchange.about import read_about_beside, write_about
from onereward_jax.exchange.huggingface import write_card
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.pair_questions import (
    ORIGIN_FIELDS,
    answers,
    chosen_first,
    given_pair,
    origin_of,
    question,
)
from onereward_jax.exchange.pairs import Pair, pairs_of

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))]))
_ORIGIN = {
    name: pa.string() if kind is str else pa.float64() for name, kind in ORIGIN_FIELDS.items()
}
COLUMNS = {
    "images": pa.list_(parquet.PICTURE),
    "prompt": _MESSAGES,
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
} | _ORIGIN

ANNOTATOR = "trl"


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes `data/<split>-*.parquet`, `README.md` and `about.json`."""
    writers = {split: parquet.ShardWriter(folder / "data", split, COLUMNS) for split in SPLITS}
    counts: Counter = Counter()
    for _, one in rows:
        for pair in pairs_of(one.comparison):
            split = one.comparison.split or "train"
            row = _row(pair, one)
            writers[split].add(row, sum(len(image["bytes"]) for image in row["images"]))
            counts[split] += 1
    for writer in writers.values():
        writer.close()
    if not counts:
        raise ValueError("there is no decided answer to write as a pair")
    write_about(folder, source)
    write_card(folder, COLUMNS, counts, source, _TEXT)


def _row(pair: Pair, one: Loaded) -> dict[str, Any]:
    images = [
        {"bytes": one.contents[picture.path], "path": picture.path}
        for picture in (pair.first, pair.second)
    ]
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question(pair)}]
    chosen, rejected = (
        [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        for answer in answers(pair)
    )
    prompt = [{"role": "user", "content": parts}]
    said = {"images": images, "prompt": prompt, "chosen": chosen, "rejected": rejected}
    return said | origin_of(pair)


def read(path: pathlib.Path, options: Options) -> Source:
    """The pairs of a folder or of a Parquet file, with explicit or implicit prompts.

    Raises:
      FileNotFoundError, ValueError: there is no file, or it is no preference data set with images.
    """
    files = parquet.parquet_files(path)
    for file in files:
        with parquet.open_parquet(file) as opened:
            names = opened.schema_arrow.names
        if missing := [name for name in ("images", "chosen", "rejected") if name not in names]:
            raise ValueError(f"{file} has no column {missing[0]!r}")
    about = read_about_beside(path)
    folder = options.pictures or (path if path.is_dir() else path.parent)
    rows = _rows(files, folder, options)
    return Source(rows, parquet.count_rows(files), about.license, about.origin)


def _rows(files: list[pathlib.Path], folder: pathlib.Path, options: Options) -> Rows:
    for place, row in parquet.parquet_rows(files):
        try:
            if isinstance(row, RowError):
                raise row
            yield Row(place, _given(row, folder, options))
        except RowError as error:
            yield Row(place, error)


def _given(row: dict[str, Any], folder: pathlib.Path, options: Options) -> Given:
    images = row["images"]
    if not isinstance(images, list) or len(images) != 2:
        raise RowError("images must be two pictures: the judged pair")
    pictures = []
    for place, image in enumerate(images):
        field = f"images[{place}]"
        if isinstance(image, str):
            pictures.append(picture_in(folder, field, image))
        else:
            pictures.append(parquet.embedded_picture(field, image))
    said = chosen_first(_said("chosen", row["chosen"]), _said("rejected", row["rejected"]))
    return given_pair(row, (pictures[0], pictures[1]), said, options, ANNOTATOR)


def _said(field: str, messages: Any) -> str:
    """The text of the last message; raises RowError."""
    try:
        content = messages[-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if part["type"] == "text")
    except (TypeError, KeyError, IndexError):
        raise RowError(f"{field} is not a list of messages") from None


_TEXT = """# Judged pairs of edited images, for TRL

Each row asks a vision-language model whether the first image is better than the second in one
dimension. `chosen` is people's answer, `rejected` the other one. The columns `comparison`, `task`,
`edit_prompt`, `dimension`, `annotator`, `source`, `probability`, `answered_at` and `seconds` say
what a row was made from.
"""
