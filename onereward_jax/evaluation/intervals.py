"""Intervals of shares that were counted on few, and how many are too few to tell."""

from __future__ import annotations

import math

FEW = 20
"""Fewer triplets or pairs than this are too few to tell: their figures are greyed in reports."""

Z = 1.959964
"""Standard deviations of a normal distribution on each side of its middle 95 %."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share in [0, 1] of `count` independent cases (Wilson 1927).

    Unlike share ± 2 standard errors it is of some width where all cases agree.
    """
    spread = Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def counted(count: int, noun: str) -> str:
    """ "1 pair", "2 pairs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
