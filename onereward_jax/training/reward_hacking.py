"""Metrics of known kinds of reward hacking; logged, never trained on.

Oversaturation, over-sharpening, brightness or contrast beyond the reference's, and changes outside
the mask raise the reward of a weak judge while people like the images less.

Single letters: b batch, h, w image height and width.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from onereward_jax.training.metrics import Mean, Metrics

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

INSIDE = ("brightness", "contrast", "colourfulness", "sharpness")
"""The metrics of `look_inside`, by name."""


def saturation(images: Float[Array, "b h w 3"]) -> Float32[Array, "b"]:
    """Mean chroma, max - min over the channels, in [0, 1] for images in [-1, 1]."""
    images = images.astype(jnp.float32)
    return jnp.mean(jnp.max(images, -1) - jnp.min(images, -1), axis=(1, 2)) / 2.0


def edge_density(images: Float[Array, "b h w 3"]) -> Float32[Array, "b"]:
    """Mean |Laplacian| of the brightness, over all pixels that have four neighbours."""
    return jnp.mean(_laplacian(_luma(images)), axis=(1, 2))


def look_inside(
    images: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
) -> dict[str, Float32[Array, "b"]]:
    """What the edited area looks like, for images in [-1, 1].

    Args:
      images: the images.
      mask: 1 = edit here; the rest does not count.

    Returns:
      brightness: mean luma in [0, 1]. contrast: its standard deviation. colourfulness: that of
      Hasler and Süsstrunk ("Measuring Colourfulness in Natural Images", 2003, Eq. 20), σ + 0.3 μ of
      the opponent colours R - G and ½ (R + G) - B in [0, 1]. sharpness: mean |Laplacian| of the
      luma over pixels of the mask that have four neighbours in the image. All are 0 without a mask.
    """
    inside = mask[..., 0].astype(jnp.float32)

    def mean(values: Float32[Array, "b h w"], weights: Float32[Array, "b h w"]) -> Array:
        total = jnp.sum(weights, axis=(1, 2))
        return jnp.sum(values * weights, axis=(1, 2)) / jnp.where(total > 0, total, 1.0)

    def moments(values: Float32[Array, "b h w"]) -> tuple[Array, Array]:
        middle = mean(values, inside)
        return middle, mean((values - middle[:, None, None]) ** 2, inside)

    red, green, blue = jnp.moveaxis((images.astype(jnp.float32) + 1.0) / 2.0, -1, 0)
    luma = (_luma(images) + 1.0) / 2.0
    brightness, variance = moments(luma)
    (reds, red_variance), (blues, blue_variance) = (
        moments(red - green),
        moments((red + green) / 2.0 - blue),
    )
    found = (
        brightness,
        jnp.sqrt(variance),
        jnp.sqrt(red_variance + blue_variance) + 0.3 * jnp.sqrt(reds**2 + blues**2),
        mean(_laplacian(luma), inside[:, 1:-1, 1:-1]),
    )
    return dict(zip(INSIDE, found, strict=True))


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
      saturation, edge_density: ratio of x_θ to x_ref over the whole image, 1 = equal; those of
      `look_inside`: the same inside the mask; outside_drift: mean |x_θ - source| per channel where
      the mask is 0; reference_outside_drift: the same for x_ref.
    """

    def ratio(of: Float32[Array, "b"], to: Float32[Array, "b"]) -> Mean:
        return Mean(jnp.sum(of), jnp.sum(to))

    outside = 1.0 - mask.astype(jnp.float32)

    def drift(of: Float[Array, "b h w 3"]) -> Mean:
        difference = jnp.abs(of.astype(jnp.float32) - sources.astype(jnp.float32))
        return Mean(jnp.sum(difference * outside), 3.0 * jnp.sum(outside))

    ours, theirs = look_inside(images, mask), look_inside(reference_images, mask)
    return {
        "saturation": ratio(saturation(images), saturation(reference_images)),
        "edge_density": ratio(edge_density(images), edge_density(reference_images)),
        **{name: ratio(ours[name], theirs[name]) for name in INSIDE},
        "outside_drift": drift(images),
        "reference_outside_drift": drift(reference_images),
    }


def _luma(images: Float[Array, "b h w 3"]) -> Float32[Array, "b h w"]:
    red, green, blue = jnp.moveaxis(images.astype(jnp.float32), -1, 0)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _laplacian(luma: Float32[Array, "b h w"]) -> Float32[Array, "b y x"]:
    """Its absolute value, where a pixel has four neighbours."""
    neighbours = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return jnp.abs(neighbours - 4.0 * luma[:, 1:-1, 1:-1])
