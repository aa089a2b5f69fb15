"""Metrics of known kinds of reward hacking; logged, never trained on.

Oversaturation, over-sharpening and changes outside the mask raise the reward of a weak judge while
people like the images less.

Single letters: b batch, h, w image height and width.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from onereward_jax.training.metrics import Mean, Metrics

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def saturation(images: Float[Array, "b h w 3"]) -> Float32[Array, "b"]:
    """Mean chroma, max - min over the channels, in [0, 1] for images in [-1, 1]."""
    images = images.astype(jnp.float32)
    return jnp.mean(jnp.max(images, -1) - jnp.min(images, -1), axis=(1, 2)) / 2.0


def edge_density(images: Float[Array, "b h w 3"]) -> Float32[Array, "b"]:
    """Mean |Laplacian| of the brightness, over all pixels that have four neighbours."""
    red, green, blue = jnp.moveaxis(images.astype(jnp.float32), -1, 0)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    neighbours = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return jnp.mean(jnp.abs(neighbours - 4.0 * luma[:, 1:-1, 1:-1]), axis=(1, 2))


def cheating_signs(
    images: Float[Array, "b h w 3"],
    reference_images: Float[Array, "b h w 3"],
    sources: Float[Array, "b h w 3"],
    mask: Float[Array, "b h w 1"],
) -> Metrics:
    """All metrics.

    Args:
      images, reference_images: x_θ and x_ref, in [-1, 1].
      sources: the input images.
      mask: 1 = edit here.

    Returns:
      saturation, edge_density: ratio of x_θ to x_ref, 1 = equal; outside_drift: mean
      |x_θ - source| per channel where the mask is 0; reference_outside_drift: the same for x_ref.
    """

    def ratio(of: Float32[Array, "b"], to: Float32[Array, "b"]) -> Mean:
        return Mean(jnp.sum(of), jnp.sum(to))

    outside = 1.0 - mask.astype(jnp.float32)

    def drift(of: Float[Array, "b h w 3"]) -> Mean:
        difference = jnp.abs(of.astype(jnp.float32) - sources.astype(jnp.float32))
        return Mean(jnp.sum(difference * outside), 3.0 * jnp.sum(outside))

    return {
        "saturation": ratio(saturation(images), saturation(reference_images)),
        "edge_density": ratio(edge_density(images), edge_density(reference_images)),
        "outside_drift": drift(images),
        "reference_outside_drift": drift(reference_images),
    }
