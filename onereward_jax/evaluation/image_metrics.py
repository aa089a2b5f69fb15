"""Image metrics of an edit, in addition to judge and oracle.

Reward hacking shows up here first: more saturated than the ground truth, more edges, changes
outside the mask.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.ssim import ssim_map

EDGE_THRESHOLD = 3.0
"""L* per pixel (blurred by σ = 1.5) above which a pixel counts as edge."""

MAX_PSNR = 60.0
"""Upper bound of the PSNR in dB, so that means stay finite."""


@dataclasses.dataclass(frozen=True)
class ImageMetrics:
    """Metrics of one result, or means over `results`, `truths` of them with a ground truth.

    Always set: `drift`, mean ΔE to the source outside the mask; `saturation`, mean chroma (L*a*b*)
    of the image; `edge_density`, fraction of edge pixels.

    None without ground truth: `psnr` in dB and `ssim` in [-1, 1] inside the mask;
    `saturation_excess` and `edge_density_excess`, the value minus that of the ground truth.
    `word_accuracy`: fraction of letters read by OCR, None without words.
    """

    drift: float
    saturation: float
    edge_density: float
    psnr: float | None = None
    ssim: float | None = None
    saturation_excess: float | None = None
    edge_density_excess: float | None = None
    word_accuracy: float | None = None
    results: int = 1
    truths: int = 0


def measure(
    result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"],
    source: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"],
    mask: Num[np.ndarray, "h w"] | Bool[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"] | None = None,
    word_accuracy: float | None = None,
) -> ImageMetrics:
    """Metrics of an edit. Images are uint8 [0, 255] or float [-1, 1].

    Args:
      result: the edited image.
      source: the source image.
      mask: above 0 inside the mask; must not cover the whole image.
      truth: the ground truth; None if unknown.
      word_accuracy: see `ImageMetrics`.
    """
    picture, inside = Picture.read(result), mask > 0
    drift = np.linalg.norm(picture.lab - Picture.read(source).lab, axis=-1)
    found = ImageMetrics(
        drift=float(drift[~inside].mean()),
        saturation=float(picture.chroma.mean()),
        edge_density=edge_density(picture),
        word_accuracy=word_accuracy,
    )
    if truth is None:
        return found
    known = Picture.read(truth)
    return dataclasses.replace(
        found,
        psnr=masked_psnr(picture, known, inside),
        ssim=float(ssim_map(picture.rgb, known.rgb)[inside].mean()),
        saturation_excess=found.saturation - float(known.chroma.mean()),
        edge_density_excess=found.edge_density - edge_density(known),
        truths=1,
    )


def mean_metrics(metrics: Iterable[ImageMetrics]) -> ImageMetrics:
    """Mean of every metric over the results that have it; counts are summed.

    Raises:
      ValueError: there are no results.
    """
    metrics = list(metrics)
    if not metrics:
        raise ValueError("no results to average")
    counts = {name: sum(getattr(one, name) for one in metrics) for name in ("results", "truths")}
    means = {}
    for name in (field.name for field in dataclasses.fields(ImageMetrics)):
        values = [value for one in metrics if (value := getattr(one, name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return ImageMetrics(**means | counts)


def masked_psnr(picture: Picture, truth: Picture, mask: Bool[np.ndarray, "h w"]) -> float:
    """Peak signal-to-noise ratio inside `mask` in dB, peak 1, at most `MAX_PSNR`."""
    error = float(((picture.rgb - truth.rgb)[mask].astype(np.float64) ** 2).mean())
    return MAX_PSNR if error <= 10 ** (-MAX_PSNR / 10) else -10 * math.log10(error)


def edge_density(picture: Picture) -> float:
    """Fraction of edge pixels in [0, 1]."""
    return float((np.linalg.norm(picture.gradient, axis=-1) > EDGE_THRESHOLD).mean())
