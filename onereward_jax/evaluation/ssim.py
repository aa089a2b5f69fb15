"""Structural similarity per pixel (Wang et al. 2004), Gaussian window σ = 1.5, per channel mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

K1, K2 = 0.01, 0.03


def ssim_map(
    a: Float[np.ndarray, "h w c"], b: Float[np.ndarray, "h w c"]
) -> Float[np.ndarray, "h w"]:
    """SSIM in [-1, 1] at every pixel of two pictures in [0, 1], averaged over channels."""
    stacked = np.stack([a, b, a * a, b * b, a * b]).astype(np.float32)
    # radius int(3.5 * 1.5 + 0.5) = 5, the 11x11 window of the paper
    blurred = ndimage.gaussian_filter(stacked, (0, 1.5, 1.5, 0), truncate=3.5)
    mean_a, mean_b, square_a, square_b, product = blurred
    variance = (square_a - mean_a**2) + (square_b - mean_b**2)
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    return (luminance * (2 * covariance + K2**2) / (variance + K2**2)).mean(-1)
