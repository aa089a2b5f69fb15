"""Near-duplicates: pictures whose embeddings have a cosine of at least a threshold.

The pictures are visited in an order of preference. One that is near an already kept picture is left
out. So no two kept pictures are near each other; but two of them may be near the same left-out
picture. These are one group, and groups are not split between training and test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

BLOCK = 2048
"""Pictures that are compared at a time; 2048 x 2048 cosines are 16 MB."""


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """The left-out pictures.

    Attributes:
      of: left-out picture -> (the nearest picture among those kept before it, their cosine).
      groups: for each picture, a picture that stands for its group.
    """

    of: Mapping[int, tuple[int, float]]
    groups: Sequence[int]


def find_near_duplicates(
    embeddings: Float32[np.ndarray, "n e"],
    order: Sequence[int],
    threshold: float,
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> NearDuplicates:
    """Finds near-duplicates exactly: n² / 2 cosines, in blocks.

    Args:
      embeddings: of length 1.
      order: all pictures, the preferred ones first.
      threshold: least cosine of near-duplicates; above 1: there are none.
      progress: called with the number of pictures of each finished block.
    """
    kept: list[int] = []
    left_out: list[int] = []
    of: dict[int, tuple[int, float]] = {}
    parents = list(range(len(embeddings)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def near_ones(rows: Sequence[int], others: Sequence[int]) -> Iterator[tuple[int, int, float]]:
        """(row, other, cosine) of the pairs that are near, which become one group."""
        for first in range(0, len(others), BLOCK):
            part = others[first : first + BLOCK]
            cosines = embeddings[list(rows)] @ embeddings[list(part)].T
            for row, column in np.argwhere(cosines >= threshold).tolist():
                parents[root(rows[row])] = root(part[column])
                yield rows[row], part[column], float(cosines[row, column])

    for start in range(0, len(order), BLOCK):
        block = list(order[start : start + BLOCK])
        for place, near, cosine in near_ones(block, kept):
            if cosine > of.get(place, (0, -2.0))[1]:
                of[place] = (near, cosine)
        free = [place for place in block if place not in of]
        stay = _greedy(embeddings[free], threshold)
        staying = [place for place, one in zip(free, stay) if one]
        turn = {place: number for number, place in enumerate(block)}
        gone = sorted(turn.keys() - staying, key=turn.get)
        for place, near, cosine in near_ones(gone, staying):
            if turn[near] < turn[place] and cosine > of.get(place, (0, -2.0))[1]:
                of[place] = (near, cosine)
        kept += staying
        left_out += [place for place in block if place in of]
        for _ in near_ones(staying, left_out):
            pass
        progress(len(block))
    return NearDuplicates(of, [root(place) for place in range(len(embeddings))])


def _greedy(embeddings: Float32[np.ndarray, "n e"], threshold: float) -> list[bool]:
    """Whether each picture is near none of the earlier ones that stay."""
    near = embeddings @ embeddings.T >= threshold
    stays = np.ones(len(embeddings), bool)
    for row in range(len(embeddings)):
        stays[row] = not (near[row, :row] & stays[:row]).any()
    return stays.tolist()
