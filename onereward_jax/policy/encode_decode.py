"""Pixels to tokens and back: the VAE between images and the transformer's token layout.

Original: diffusers' `FluxFillPipeline.prepare_mask_latents`, `_encode_vae_image` and the last lines
of its `__call__`.

Single letters: b batch, h, w image height and width, n tokens, c channels of a latent token (64 for
FLUX), m channels of a mask token (256).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from onereward_jax.models.vae import AutoencoderKL
from onereward_jax.policy.latent_packing import (
    image_ids,
    pack_latents,
    pack_mask,
    token_grid,
    unpack_latents,
)
from onereward_jax.policy.model_inputs import Condition


def encode_image(
    vae: AutoencoderKL,
    params: Any,
    image: Float[Array, "b h w 3"],
    key: PRNGKeyArray | None = None,
) -> Float32[Array, "b n c"]:
    """Latent tokens of images, normalised as the transformer expects: (z - shift) * scale.

    Args:
      vae, params: the autoencoder and its parameters.
      image: in [-1, 1].
      key: None: use the mean of the VAE's posterior; a key: sample from it, as diffusers does.
        Training uses the mean, so that policy and reference get the same condition and a resumed
        run gets the same as an uninterrupted one. The posterior of FLUX's VAE is so narrow that
        both look the same.

    Raises:
      ValueError: height or width is not a multiple of the token size in pixels.
    """
    token_grid(image.shape[1], image.shape[2], vae.config.scale_factor)
    mean, logvar = vae.apply({"params": params}, image, method="encode")
    latents = mean.astype(jnp.float32)
    if key is not None:
        noise = jax.random.normal(key, latents.shape, jnp.float32)
        latents = latents + jnp.exp(0.5 * logvar.astype(jnp.float32)) * noise
    return pack_latents((latents - vae.config.shift_factor) * vae.config.scaling_factor)


def encode_condition(
    vae: AutoencoderKL,
    params: Any,
    image: Float[Array, "b h w 3"],
    mask: Float[Array, "b h w 1"],
    key: PRNGKeyArray | None = None,
) -> Condition:
    """The fill condition: tokens of masked image latents and mask, with k = c + m channels.

    Args:
      vae, params, key: as in `encode_image`.
      image: source in [-1, 1]; the area to edit is set to 0 (grey) before encoding.
      mask: 1 = edit here, 0 = keep.
    """
    masked = encode_image(vae, params, image * (1.0 - mask), key)
    folded = pack_mask(mask, vae.config.scale_factor).astype(jnp.float32)
    grid = token_grid(image.shape[1], image.shape[2], vae.config.scale_factor)
    return Condition(jnp.concatenate([masked, folded], axis=-1), image_ids(grid))


def decode_latents(
    vae: AutoencoderKL, params: Any, tokens: Float[Array, "b n c"], size: tuple[int, int]
) -> Float32[Array, "b h w 3"]:
    """Images from latent tokens, approximately in [-1, 1]; not clipped, to keep gradients.

    Args:
      vae, params: the autoencoder and its parameters.
      tokens: [b, n, c].
      size: (height, width) of the images in pixels.

    Raises:
      ValueError: the tokens do not fill an image of this size.
    """
    latents = unpack_latents(tokens, token_grid(*size, vae.config.scale_factor))
    latents = latents.astype(jnp.float32) / vae.config.scaling_factor + vae.config.shift_factor
    return vae.apply({"params": params}, latents, method="decode").astype(jnp.float32)
