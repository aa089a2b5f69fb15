"""The interface of annotators, which name the best and the worst candidate of a triplet.

People answer in files (`answers`). A plug-in named in `config.annotate.by` answers synchronously.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from onereward_jax.tasks import Dimension, Task


class Asked(NamedTuple):
    """The candidates of one triplet.

    Attributes:
      name: name of the triplet, "<split>/<id>"; use it to seed random draws.
      split: "train" or "test". Answers about test triplets measure the judge's accuracy.
      task: task of the triplet.
      example: the triplet, as returned by `data.triplets.Triplets`.
      pictures: images of the candidates, in [0, 255].
    """

    name: str
    split: str
    task: Task
    example: Mapping[str, Any]
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]]


BestAndWorst = Mapping[Dimension, tuple[int, int] | None]
"""Dimension -> (best, worst), indices of candidates; None: they do not differ (∅)."""


@runtime_checkable
class Annotator(Protocol):
    """Names the best and the worst candidate in every dimension of a task.

    Attributes:
      name: name of the annotator, stored with the preferences.
    """

    name: str

    def answer(self, asked: Asked) -> BestAndWorst:
        """Best and worst candidate of a triplet, for every dimension of its task."""
