"""What the command line says about a file in another format."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from onereward_jax.annotation.given_comparisons import Rows
from onereward_jax.data.example import Split
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the readers and writers; each uses those that its format lacks.

    Attributes:
      pictures: folder that relative paths start from; None: the folder of the file.
      task: task of rows that do not state one.
      dimensions: name in the file -> the dimension. For formats without dimensions, the values
        name the dimension of all rows.
      columns: our name of a column -> its name in the file.
      labels: value of a label in the file -> "a", "b" or "tie".
      annotator: annotator of rows that do not state one.
      split: split of all rows; None: as stated, else drawn by the source picture.
      url: what paths of pictures start with, for Label Studio; "": its local files.
      name: name of the folder to write.
    """

    pictures: pathlib.Path | None = None
    task: Task | None = None
    dimensions: Mapping[str, Dimension] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotator: str = ""
    split: Split | None = None
    url: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened file or folder.

    Attributes:
      rows: its rows, read on demand.
      total: their number.
      license: the licence that it states; "" if none.
      origin: where its comparisons come from, e.g. from an `about.json`.
    """

    rows: Rows
    total: int
    license: str = ""
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
