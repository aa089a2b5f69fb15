"""The formats that preferences are exported to and imported from."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

from onereward_jax.annotation.given_comparisons import Loaded
from onereward_jax.exchange import (
    edit_reward,
    folder,
    huggingface,
    label_studio,
    ms_swift,
    parquet,
    table,
    trl,
)
from onereward_jax.exchange.options import Options, Source

Writer = Callable[[Iterator[tuple[str, Loaded]], pathlib.Path, Source, Options], None]
Reader = Callable[[pathlib.Path, Options], Source]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
      summary: one line of help.
      read: opens a file or folder; None: it is only written.
      write: writes loaded comparisons into an empty folder; None: it is only read.
    """

    summary: str
    read: Reader | None = None
    write: Writer | None = None


FORMATS: dict[str, Format] = {
    "folder": Format("a preferences folder: JSON lines and pictures", folder.read, folder.write),
    "parquet": Format("Parquet files with the pictures inside", parquet.read, parquet.write),
    "huggingface": Format(
        "a Hugging Face data set with its card", huggingface.read, huggingface.write
    ),
    "label_studio": Format(
        "tasks and interface of Label Studio; results (JSON, JSON-MIN) back",
        label_studio.read,
        label_studio.write,
    ),
    "trl": Format("pairs for TRL: questions about two images", trl.read, trl.write),
    "ms_swift": Format("pairs for ms-swift: JSON lines", ms_swift.read, ms_swift.write),
    "edit_reward": Format("EditReward-Data's JSON", edit_reward.read),
    "table": Format("one pair per row: CSV, JSON, JSON lines or Parquet", table.read),
}
