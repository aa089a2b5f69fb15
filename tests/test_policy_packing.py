"""Token layout equals the fill pipeline's, for several VAE scale factors and non-square images."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline

from onereward_jax.policy import latent_packing

SIZES = [(2, 3, 2), (4, 2, 5), (8, 3, 4)]
"""(VAE scale factor, token rows, token columns)."""


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize(("factor", "rows", "columns"), SIZES)
def test_layout_equals_the_pipelines(factor: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    channels, batch = 5, 2
    height, width = rows * 2 * factor, columns * 2 * factor
    latents = rng.normal(size=(batch, 2 * rows, 2 * columns, channels)).astype(np.float32)
    mask = rng.integers(0, 2, size=(batch, height, width, 1)).astype(np.float32)

    packed = latent_packing.pack_latents(jnp.asarray(latents))
    expected = FluxFillPipeline._pack_latents(nchw(latents), batch, channels, 2 * rows, 2 * columns)
    np.testing.assert_array_equal(packed, expected.numpy())

    grid = latent_packing.token_grid(height, width, factor)
    assert grid == (rows, columns)
    np.testing.assert_array_equal(latent_packing.unpack_latents(packed, grid), latents)

    # The pipeline's own method, given latents as the "masked image" so that no VAE is needed.
    pipeline = SimpleNamespace(
        vae_scale_factor=factor,
        vae=SimpleNamespace(config=SimpleNamespace(shift_factor=0.0, scaling_factor=1.0)),
        _pack_latents=FluxFillPipeline._pack_latents,
    )
    expected_mask, _ = FluxFillPipeline.prepare_mask_latents(
        pipeline, nchw(mask), nchw(latents), batch, channels, 1, height, width,
        torch.float32, "cpu", None,
    )  # fmt: skip
    found_mask = latent_packing.pack_mask(jnp.asarray(mask), factor)
    assert found_mask.shape == (batch, rows * columns, 4 * factor**2)
    np.testing.assert_array_equal(found_mask, expected_mask.numpy())

    expected_ids = FluxFillPipeline._prepare_latent_image_ids(
        batch, rows, columns, "cpu", torch.float32
    )
    np.testing.assert_array_equal(latent_packing.image_ids(grid), expected_ids.numpy())
    assert not latent_packing.text_ids(7).any()


def test_sizes_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="40x64 pixels: both sides must be multiples of 16"):
        latent_packing.token_grid(40, 64, 8)
    with pytest.raises(ValueError, match="6 tokens do not fill a grid of 2x2"):
        latent_packing.unpack_latents(jnp.zeros((1, 6, 4)), (2, 2))
