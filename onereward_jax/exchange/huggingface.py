"""A Hugging Face data set: Parquet shards per split and a data set card with the features.

`datasets.load_dataset(folder)` gives `Image` columns; the folder can be uploaded as it is. It has
no script.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from huggingface_hub import DatasetCardData

from onereward_jax.annotation.given_comparisons import Loaded
from onereward_jax.data.example import SPLITS
from onereward_jax.exchange import parquet
from onereward_jax.exchange.about import write_about
from onereward_jax.exchange.options import Options, Source

CARD = "README.md"

LICENSE_LENGTH = 40
"""Longer texts, or such with spaces, are no licence ids of the hub."""

read = parquet.read


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes `data/<split>-*.parquet`, `README.md` and `about.json`."""
    writers = {
        split: parquet.ShardWriter(folder / "data", split, parquet.COLUMNS) for split in SPLITS
    }
    counts: Counter = Counter()
    for _, one in rows:
        split = one.comparison.split or "train"
        counts[split] += 1
        writers[split].add(*parquet.to_row(one))
    for writer in writers.values():
        writer.close()
    write_about(folder, source)
    write_card(folder, parquet.COLUMNS, counts, source, _TEXT)


def write_card(
    folder: pathlib.Path,
    columns: dict[str, pa.DataType],
    counts: Counter,
    source: Source,
    text: str,
) -> None:
    """Writes the card: its YAML header names shards and features, `text` follows."""
    splits = [split for split in SPLITS if counts[split]]
    header: dict[str, Any] = {
        "license": hub_license(source.license),
        "task_categories": ["image-to-image"],
        "tags": ["preferences", "image-editing", "reward-model"],
        "size_categories": [_size(sum(counts.values()))],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in splits
                ],
            }
        ],
        "dataset_info": {
            "features": [{"name": name} | _feature(kind) for name, kind in columns.items()]
        },
    }
    if header["license"] == "other":
        header["license_name"] = source.license or "not stated"
    listed = "\n".join(f"- {split}: {counts[split]} rows" for split in splits)
    stated = source.license or "not stated: ask whoever made the data before you use it"
    body = f"{text}\n{listed}\n\nLicence: {stated}\n"
    head = DatasetCardData(**header).to_yaml()
    (folder / CARD).write_text(f"---\n{head}\n---\n\n{body}", encoding="utf-8")


def hub_license(license: str) -> str:
    """The licence in the card: an id such as "cc-by-4.0", else "other"."""
    is_id = license and len(license) <= LICENSE_LENGTH and license.isascii() and " " not in license
    return license.lower() if is_id else "other"


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A feature in the card's notation."""
    if kind == parquet.PICTURE:
        return {"dtype": "image"}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name} | _feature(field.type) for field in kind]}
    if pa.types.is_list(kind):
        ((name, inner),) = _feature(kind.value_type).items()
        return {"list": inner}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind))}


def _size(rows: int) -> str:
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    return names[min(sum(rows >= limit for limit in (10**3, 10**4, 10**5, 10**6)), 4)]


_TEXT = """# Preferences about edited images

One row per comparison: an edit, its candidates, and people's answers about the best and the worst
candidate in each dimension.

| column | content |
|---|---|
| `id`, `source` | the comparison, and the source picture that it is about |
| `task`, `prompt`, `split` | the edit; a source picture is in one split only |
| `image`, `mask` | source image and mask (white: edit here), or null |
| `candidates` | the edited images |
| `models`, `settings` | what made each candidate, and with which settings (JSON) |
| `answers` | people's answers, see below |

An answer has `dimension`; `best` and `worst`, indices of candidates, both null where they do not
differ; `probability` that the best is preferred to the worst; `annotator`; `answered_at` (Unix
time) and `seconds` spent, 0 where not known.
"""
