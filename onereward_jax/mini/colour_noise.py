"""Colour noise on candidates, so that the judge has seen more than its editor's own mistakes.

The candidates of one editor err to one side: a little pale, say. A judge that learned from them
alone finds any step to the other side better, however long, and a policy that is trained by it
goes too far. With candidates disturbed to all sides it knows where to stop. Not in the paper,
whose candidates come from many prompts and settings of a large editor.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

GRIDS = (1, 2, 4, 8, 16)
"""Cells per side of the fields of noise that are added up: from a tint of the whole to spots."""


def disturbed(
    image: Float32[np.ndarray, "h w 3"],
    mask: Float[np.ndarray, "h w 1"],
    strength: float,
    seed: int,
) -> Float32[np.ndarray, "h w 3"]:
    """The image with another contrast and tint inside the mask.

    Args:
      image: in [-1, 1].
      mask: 1 = disturb here.
      strength: standard deviation of the added noise, and of the logarithm of the contrast's gain;
        0 returns the image.
      seed: of the noise.
    """
    if not strength:
        return image
    rng = np.random.default_rng((seed, 1))
    size = image.shape[1::-1]
    field = np.zeros(image.shape, np.float32)
    for cells in GRIDS:
        for channel in range(3):
            small = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
            field[..., channel] += np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    field *= strength / len(GRIDS) ** 0.5
    inside = mask > 0.5
    centre = np.mean(image, axis=(0, 1), where=inside)
    gain = np.exp(strength * rng.standard_normal())
    changed = np.clip(centre + gain * (image - centre) + field, -1.0, 1.0)
    return np.where(inside, changed, image).astype(np.float32)
