"""What an oracle is: whoever knows the truth of a triplet and scores results by it.

A plug-in of `config.evaluate.oracle` makes one. It is asked in evaluation only: never in a loss.
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
      same_margin: mean scores that differ by no more are Same; otherwise Good or Bad.
    """

    same_margin: float

    def scores(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> Mapping[Dimension, float]:
        """Per dimension of the triplet's task; higher is better.

        Args:
          picture: the result.
          example: the triplet, as `data.triplets.Triplets` gives it.
        """

    def letters_read(
        self, picture: UInt8[np.ndarray, "h w 3"], example: Mapping[str, Any]
    ) -> float | None:
        """Share of the asked word's letters that can be read; None where no word was asked for."""
