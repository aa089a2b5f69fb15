"""The interface of oracles, which score results by the ground truth of a triplet.

Made by a plug-in named in `config.evaluate.oracle`. Used only in evaluation, never in a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from onereward_jax.tasks import Dimension


@runtime_checkable
class Oracle(Protocol):
    """Scores results.

    Attributes:
      same_margin: maximum difference of mean scores for Same; otherwise Good or Bad.
      pair_margin: optional; maximum difference in one dimension at which a pair of results has no
        better one, to measure judges. Default: `same_margin`.
    """

    same_margin: float

    def scores(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> Mapping[Dimension, float]:
        """A score per dimension of the triplet's task; higher is better.

        Args:
          picture: the result.
          example: the triplet, as returned by `data.triplets.Triplets`.
        """

    def letters_read(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> float | None:
        """Fraction of the requested word's letters that are readable; None without a word."""
