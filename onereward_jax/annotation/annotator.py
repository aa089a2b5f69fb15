"""What an annotator is: whoever says which candidate is best and which is worst.

People answer in files (`answers`). A plug-in of `config.annotate.by` answers on the spot.
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
      name: of the triplet, "<split>/<id>"; random draws should depend on it.
      split: "train" or "test". BestAndWorst about test triplets measure the judge.
      task: of the triplet.
      example: the triplet, as `data.triplets.Triplets` gives it.
      pictures: of the candidates, in [0, 255].
    """

    name: str
    split: str
    task: Task
    example: Mapping[str, Any]
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]]


BestAndWorst = Mapping[Dimension, tuple[int, int] | None]
"""Dimension -> (best, worst) by their place among the candidates; None: they do not differ (∅)."""


@runtime_checkable
class Annotator(Protocol):
    """BestAndWorst for every dimension of a task.

    Attributes:
      name: as the preferences call it.
    """

    name: str

    def answer(self, asked: Asked) -> BestAndWorst:
        """Best and worst candidate of a triplet, dimension by dimension."""
