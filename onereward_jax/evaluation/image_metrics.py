"""Plain measurements of an edit against the truth, beside the judge and the oracle.

They are what reward hacking shows up in first: colours beyond the truth's, edges where there were
none, an unmasked area that drifts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from onereward_jax.evaluation.oracle.picture import Picture
from onereward_jax.evaluation.oracle.reading import likeness
from onereward_jax.evaluation.oracle.ssim import ssim_map
from onereward_jax.evaluation.oracle.triplet import Triplet
from onereward_jax.evaluation.oracle.words import Reader

EDGE_THRESHOLD = 3.0
"""L* per pixel (blurred by σ = 1.5) above which a pixel counts as edge."""

MAX_PSNR = 60.0
"""dB reported for (nearly) equal regions, so that means stay finite."""


@dataclasses.dataclass(frozen=True)
class ImageMetrics:
    """Measurements of one result, or their mean over several; `word_accuracy` None without words.

    `psnr` in dB and `ssim` in [-1, 1] are inside the mask against the truth; `drift` is the mean
    ΔE of the unmasked area against the source; `saturation` the mean chroma (L*a*b*) of the whole
    picture and `saturation_excess` the same minus the truth's; `edge_density` and
    `edge_density_excess` the share of edge pixels likewise; `word_accuracy` the share of letters
    that OCR reads.
    """

    psnr: float
    ssim: float
    drift: float
    saturation: float
    saturation_excess: float
    edge_density: float
    edge_density_excess: float
    word_accuracy: float | None


def measure(
    result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"],
    triplet: Triplet,
    reader: Reader | None = None,
) -> ImageMetrics:
    """Measurements of `result` (uint8 [0, 255] or float [-1, 1]); words are read by `reader`."""
    picture, truth = Picture.read(result), triplet.target
    word_accuracy = None
    if triplet.kind == "word" and reader is not None:
        pixels = np.round(picture.rgb * 255).astype(np.uint8)
        word_accuracy = likeness(reader(pixels, triplet.box), triplet.label)
    drift = np.linalg.norm(picture.lab - triplet.image.lab, axis=-1)
    saturation, edges = float(picture.chroma.mean()), edge_density(picture)
    return ImageMetrics(
        psnr=masked_psnr(picture, truth, triplet.mask),
        ssim=float(ssim_map(picture.rgb, truth.rgb)[triplet.mask].mean()),
        drift=float(drift[~triplet.mask].mean()),
        saturation=saturation,
        saturation_excess=saturation - float(truth.chroma.mean()),
        edge_density=edges,
        edge_density_excess=edges - edge_density(truth),
        word_accuracy=word_accuracy,
    )


def mean_metrics(metrics: Iterable[ImageMetrics]) -> ImageMetrics:
    """Mean of every measurement over the results that have it.

    Raises:
      ValueError: there are no results.
    """
    metrics = list(metrics)
    if not metrics:
        raise ValueError("no results to average")
    means = {}
    for field in dataclasses.fields(ImageMetrics):
        values = [value for one in metrics if (value := getattr(one, field.name)) is not None]
        means[field.name] = float(np.mean(values)) if values else None
    return ImageMetrics(**means)


def masked_psnr(picture: Picture, truth: Picture, mask: Bool[np.ndarray, "h w"]) -> float:
    """Peak signal-to-noise ratio inside `mask` in dB, peak 1, at most `MAX_PSNR`."""
    error = float(((picture.rgb - truth.rgb)[mask].astype(np.float64) ** 2).mean())
    return MAX_PSNR if error <= 10 ** (-MAX_PSNR / 10) else -10 * math.log10(error)


def edge_density(picture: Picture) -> float:
    """Share of edge pixels in [0, 1]."""
    return float((np.linalg.norm(picture.gradient, axis=-1) > EDGE_THRESHOLD).mean())
