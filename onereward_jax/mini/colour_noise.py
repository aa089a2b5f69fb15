"""Colour noise on candidates, so that the judge sees more than the editor's own errors.

The candidates of one editor share its errors, e.g. they are all a little pale. A judge trained only
on them prefers any change in the opposite direction, however large, and a policy trained with that
judge overshoots. Colour noise in all directions prevents this. Not in the paper, whose candidates
come from many prompts and settings of a large editor.

`config.candidates.transform = "onereward_jax.mini.colour_noise"`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32
from ml_collections import FrozenConfigDict
from PIL import Image

from onereward_jax.chain.allowed_values import SHARE, between
from onereward_jax.common.rng import generator
from onereward_jax.mini.scene_source import require_scenes

FIELDS = {"mini.disturbed": SHARE, "mini.disturbance": between(0.0)}

GRIDS = (1, 2, 4, 8, 16)
"""Cells per side of the noise fields, which are summed: from a tint of the whole image to spots."""


def add_colour_noise(
    image: Float32[np.ndarray, "h w 3"],
    mask: Float[np.ndarray, "h w 1"],
    strength: float,
    seed: int,
) -> Float32[np.ndarray, "h w 3"]:
    """The image with changed contrast and tint inside the mask.

    Args:
      image: in [-1, 1].
      mask: 1 = change here.
      strength: standard deviation of the added noise, and of the logarithm of the contrast's gain;
        0 returns the image.
      seed: seed of the noise.
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


@dataclasses.dataclass(frozen=True)
class ColourNoise:
    """See `stages.candidate_plans.CandidateTransform`.

    Attributes:
      seed: seed of the choice of triplets.
      share: share of the triplets whose candidates get colour noise.
      strengths: range of the noise's standard deviation, for values in [-1, 1].
    """

    seed: int
    share: float
    strengths: tuple[float, float]

    def draw(self, rng: np.random.Generator, split: str, name: str) -> float:
        """Noise strength of a candidate; all candidates of a triplet get noise, or none does."""
        disturbs = generator(self.seed, "disturb", split, name).random() < self.share
        return float(disturbs * rng.uniform(*self.strengths))

    def apply(
        self,
        image: Float32[np.ndarray, "h w 3"],
        mask: Float[np.ndarray, "h w 1"],
        strength: float,
        seed: int,
    ) -> Float32[np.ndarray, "h w 3"]:
        """See `add_colour_noise`."""
        return add_colour_noise(image, mask, strength, seed)


def check(config: FrozenConfigDict) -> None:
    """Raises ValueError if the triplets are not from `mini.scene_source`."""
    require_scenes(config, "candidates.transform")


def make_transform(config: FrozenConfigDict) -> ColourNoise:
    """The transform of `config.mini`."""
    section = config.mini
    return ColourNoise(config.seed, section.disturbed, tuple(section.disturbance))
