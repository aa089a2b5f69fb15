"""An image with cached features that are shared by multiple metrics."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Float32, Num, UInt8
from scipy import ndimage

from onereward_jax.common.cielab import rgb_to_lab

REFERENCE_SIDE = 64
"""Filter widths are given in pixels of a 64×64 image and scale with the shorter side."""


def to_unit_range(image: Num[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """uint8 [0, 255] or float [-1, 1] to float32 [0, 1]; floats outside the range are clipped."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255.0
    return np.clip(image.astype(np.float32) * 0.5 + 0.5, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """An RGB image in [0, 1] with cached features. Filter widths σ are for 64×64 images."""

    rgb: Float32[np.ndarray, "h w 3"]

    @classmethod
    def read(cls, image: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"]) -> Picture:
        """From uint8 [0, 255] or float [-1, 1]."""
        return cls(to_unit_range(image))

    @property
    def unit(self) -> float:
        """Pixels per pixel of a 64×64 image."""
        return min(self.rgb.shape[:2]) / REFERENCE_SIDE

    def smooth(
        self, values: Float[np.ndarray, "h w *c"], sigma: float
    ) -> Float[np.ndarray, "h w *c"]:
        """Gaussian blur over the two image axes."""
        width = sigma * self.unit
        return ndimage.gaussian_filter(
            values, (width, width) + (0,) * (values.ndim - 2), truncate=3.0
        )

    @functools.cached_property
    def lab(self) -> Float32[np.ndarray, "h w 3"]:
        """CIE L*a*b*: L* in [0, 100], a* and b* approximately in [-100, 100].

        Euclidean distance is ΔE (CIE 1976): 2.3 is just noticeable, 100 is black to white.
        """
        return rgb_to_lab(self.rgb).astype(np.float32)

    @functools.cached_property
    def soft_lab(self) -> Float32[np.ndarray, "h w 3"]:
        """L*a*b* blurred by σ = 1.5: colours without fine texture, which the VAE loses."""
        return self.smooth(self.lab, 1.5)

    @functools.cached_property
    def gradient(self) -> Float32[np.ndarray, "h w 2"]:
        """(∂y, ∂x) of L* blurred by σ = 1.5, in L* per pixel: layout rather than texture."""
        return np.stack(np.gradient(self.smooth(self.lab[..., 0], 1.5)), -1).astype(np.float32)

    @functools.cached_property
    def detail(self) -> Float32[np.ndarray, "h w"]:
        """Local change at the finest scale: mean |L* - neighbour| over the four neighbours."""
        padded = np.pad(self.lab[..., 0], 1, mode="edge")
        down = np.abs(np.diff(padded, axis=0))[:, 1:-1]
        right = np.abs(np.diff(padded, axis=1))[1:-1]
        return (down[1:] + down[:-1] + right[:, 1:] + right[:, :-1]) / 4

    @functools.cached_property
    def chroma(self) -> Float32[np.ndarray, "h w"]:
        """Colourfulness sqrt(a*² + b*²)."""
        return np.hypot(self.lab[..., 1], self.lab[..., 2])
