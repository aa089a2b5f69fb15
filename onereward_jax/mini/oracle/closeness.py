"""Functions that map distances to scores in [0, 1], and means over regions that may be empty."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float


def closeness(distance: float, scale: float) -> float:
    """exp(-distance / scale): 1 at distance 0, 0.37 at `scale`, strictly decreasing."""
    return math.exp(-distance / scale)


def mean_over(values: Float[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"]) -> float:
    """Mean of `values` in `region`; 0 for an empty region."""
    return float(values[region].mean()) if region.any() else 0.0


def log_ratio(a: float, b: float, floor: float) -> float:
    """ln((a + floor) / (b + floor)); near 0 for two values far below `floor`."""
    return math.log((a + floor) / (b + floor))


def weighted(parts: dict[str, float], weights: dict[str, float]) -> float:
    """Weighted mean of named parts in [0, 1]; both must name the same parts."""
    if parts.keys() != weights.keys():
        raise ValueError(f"parts {sorted(parts)} and weights {sorted(weights)} differ")
    return sum(parts[name] * weights[name] for name in parts) / sum(weights.values())


def gradient_agreement(
    a: Float[np.ndarray, "h w c"],
    b: Float[np.ndarray, "h w c"],
    region: Bool[np.ndarray, "h w"],
    floor: float,
) -> float:
    """Agreement in direction and strength of two vector fields over `region`, in [0, 1].

    (2 Σ a·b + n floor²) / (Σ|a|² + Σ|b|² + n floor²), clipped below at 0: the contrast-structure
    term of SSIM on a field. Equal fields give 1, a vanished or unrelated one about 0; where both
    are weaker than `floor` they count as equal.
    """
    a, b = a[region], b[region]
    slack = len(a) * floor**2
    total = float((a * a).sum() + (b * b).sum()) + slack
    return max(0.0, (2 * float((a * b).sum()) + slack) / total) if total else 1.0
