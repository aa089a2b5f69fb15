"""FLUX's token layout: 2x2 patches of latents, masks folded to latent size, position ids.

Channel orders equal diffusers' `FluxFillPipeline` (`_pack_latents`, `prepare_mask_latents`), which
works on NCHW; here images, masks and latents are NHWC.

Single letters: b batch, h, w latent height and width (images: H, W), c latent channels, n tokens,
l text tokens, f the VAE's scale factor (pixels per latent, along each side).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

PATCH = 2
"""Latents per side of a token."""


def token_grid(height: int, width: int, vae_scale_factor: int) -> tuple[int, int]:
    """Rows and columns of tokens of an image of `height` x `width` pixels.

    Raises:
      ValueError: a side is not a multiple of `PATCH * vae_scale_factor`. (diffusers' pipeline
        silently resizes; a training batch must not.)
    """
    side = PATCH * vae_scale_factor
    if height % side or width % side:
        raise ValueError(
            f"image of {height}x{width} pixels: both sides must be multiples of {side} "
            f"({PATCH}x{PATCH} latents of {vae_scale_factor} pixels)"
        )
    return height // side, width // side


def pack_latents(latents: Float[Array, "b h w c"]) -> Float[Array, "b n p"]:
    """Tokens of 2x2 latents, row by row: n = h/2 * w/2, p = 4c in the order (c, y, x).

    Raises:
      ValueError: an odd side.
    """
    batch, height, width, channels = latents.shape
    if height % PATCH or width % PATCH:
        raise ValueError(
            f"latents of {height}x{width} cannot be split into {PATCH}x{PATCH} patches"
        )
    rows, columns = height // PATCH, width // PATCH
    patches = latents.reshape(batch, rows, PATCH, columns, PATCH, channels)
    patches = patches.transpose(0, 1, 3, 5, 2, 4)
    return patches.reshape(batch, rows * columns, channels * PATCH * PATCH)


def unpack_latents(tokens: Float[Array, "b n p"], grid: tuple[int, int]) -> Float[Array, "b h w c"]:
    """The inverse of `pack_latents`.

    Args:
      tokens: [b, rows * columns, 4c].
      grid: (rows, columns) of tokens, from `token_grid`.

    Raises:
      ValueError: the number of tokens is not rows * columns.
    """
    batch, count, features = tokens.shape
    rows, columns = grid
    if count != rows * columns:
        raise ValueError(f"{count} tokens do not fill a grid of {rows}x{columns}")
    channels = features // (PATCH * PATCH)
    patches = tokens.reshape(batch, rows, columns, channels, PATCH, PATCH)
    patches = patches.transpose(0, 1, 4, 2, 5, 3)
    return patches.reshape(batch, rows * PATCH, columns * PATCH, channels)


def pack_mask(mask: Float[Array, "b H W 1"], vae_scale_factor: int) -> Float[Array, "b n m"]:
    """Tokens of a full-resolution mask, without downsampling.

    The f x f pixels under each latent become its f² channels in the order (y, x), which are then
    packed like latents: m = 4f² (256 for FLUX's f = 8).

    Args:
      mask: 1 = edit here, 0 = keep.
      vae_scale_factor: f.

    Raises:
      ValueError: as `token_grid`.
    """
    batch, height, width, _ = mask.shape
    token_grid(height, width, vae_scale_factor)
    rows, columns = height // vae_scale_factor, width // vae_scale_factor
    folded = mask.reshape(batch, rows, vae_scale_factor, columns, vae_scale_factor)
    folded = folded.transpose(0, 1, 3, 2, 4)
    return pack_latents(folded.reshape(batch, rows, columns, vae_scale_factor**2))


def image_ids(grid: tuple[int, int]) -> Float[Array, "n 3"]:
    """Rotary position ids of image tokens: (0, row, column), float32."""
    rows, columns = grid
    row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    ids = jnp.stack([jnp.zeros_like(row), row, column], axis=-1)
    return ids.reshape(rows * columns, 3).astype(jnp.float32)


def text_ids(length: int) -> Float[Array, "l 3"]:
    """Rotary position ids of text tokens: all zero, so text carries no position."""
    return jnp.zeros((length, 3), jnp.float32)
