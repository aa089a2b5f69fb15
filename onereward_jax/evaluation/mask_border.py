"""What an edit looks like at the border of its mask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from onereward_jax.evaluation.picture_features import Picture


def seam(picture: Picture, mask: Bool[np.ndarray, "h w"]) -> float | None:
    """The step across the mask's border beyond the steps just beside it, in ΔE (CIE 1976).

    For neighbours on both sides of the border, in rows and in columns: their colour difference,
    minus the mean of that one pixel further inside and that one pixel further outside; averaged
    over the border. 0 without a seam, also where the picture is busy; 2.3 is just noticeable.

    Returns:
      None where no border has pixels on both sides: the mask covers the whole picture, or its
      parts are thinner than two pixels.
    """
    found = [
        values
        for lab, inside in (
            (picture.lab, mask),
            (picture.lab.swapaxes(0, 1), mask.T),
        )
        for values in [_steps_beyond(lab, inside)]
    ]
    steps = np.concatenate(found)
    return float(steps.mean()) if steps.size else None


def _steps_beyond(
    lab: Float[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "n"]:
    """The excess of each border between two rows."""
    steps = np.linalg.norm(np.diff(lab.astype(np.float64), axis=0), axis=-1)
    borders = mask[1:] != mask[:-1]
    middle = borders[1:-1] & ~borders[:-2] & ~borders[2:]
    return (steps[1:-1] - (steps[:-2] + steps[2:]) / 2)[middle]
