"""Confidence intervals of proportions, and the minimum sample size for a conclusion."""

from __future__ import annotations

import math

FEW = 20
"""With fewer triplets or pairs than this, reports show figures in grey: no conclusion."""

Z = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion `share` in [0, 1] of `count` independent cases (Wilson 1927).

    Unlike share ± 2 standard errors, it has a width even if all cases agree.
    """
    spread = Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def counted(count: int, noun: str) -> str:
    """ "1 pair", "2 pairs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
