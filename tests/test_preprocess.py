"""Image preprocessing of the judge against transformers' Qwen2VLImageProcessor."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor

from onereward_jax.reward.image_preprocess import ImageProcessor, bicubic_weights, resize

SIZES = {
    "enlarged": ((64, 64), 112 * 112, 112 * 112),
    "not_square": ((50, 90), 56 * 56, 28 * 28 * 1280),
    "shrunk": ((131, 75), 28 * 28, 56 * 56),
}


def both(minimum: int, maximum: int, folder: Path) -> tuple[ImageProcessor, Qwen2VLImageProcessor]:
    """Ours, built from what transformers saves, and theirs."""
    theirs = Qwen2VLImageProcessor(size={"shortest_edge": minimum, "longest_edge": maximum})
    theirs.save_pretrained(folder)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    return ImageProcessor.from_dict(config), theirs


@pytest.mark.parametrize("name", SIZES)
def test_patches_equal_transformers_up_to_rounding(name: str, tmp_path: Path) -> None:
    (height, width), minimum, maximum = SIZES[name]
    ours, theirs = both(minimum, maximum, tmp_path)
    # noise over the whole range is the worst case for overshoot and rounding
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = theirs([Image.fromarray(image) for image in pixels], return_tensors="pt")
    grids = expected["image_grid_thw"].tolist()
    assert grids == [list(ours.grid(height, width))] * 2

    patches = ours(jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0)
    expected = expected["pixel_values"].numpy().reshape(patches.shape)
    # channel is the slowest axis of a patch
    std = np.repeat(np.asarray(ours.image_std), 2 * ours.patch_size**2)
    levels = np.abs(np.asarray(patches) - expected) * std * 255
    assert levels.max() < 2.0
    assert levels.mean() < 0.5


def test_patch_order_is_exact_without_resizing(tmp_path: Path) -> None:
    ours, theirs = both(28 * 28, 112 * 140, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 56, 84, 3), dtype=np.uint8)
    patches = ours(jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0)
    expected = theirs(Image.fromarray(pixels[0]), return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(np.asarray(patches)[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size_in, size_out", [(64, 112), (75, 28), (30, 29)])
def test_weights_equal_torch_antialiased_bicubic(size_in: int, size_out: int) -> None:
    columns = torch.eye(size_in).reshape(1, size_in, 1, size_in)
    expected = torch.nn.functional.interpolate(
        columns, (1, size_out), mode="bicubic", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(
        bicubic_weights(size_in, size_out).T, expected[0, :, 0].numpy(), atol=1e-5
    )


def test_gradient_is_the_transposed_resize() -> None:
    """Where nothing is cut off, <g, R x> differentiates to exactly Rᵀ g."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(0.4, 0.6, (1, 10, 12, 3)), jnp.float32)
    probe = jnp.asarray(rng.normal(size=(1, 28, 14, 3)), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(resize(x, 28, 14) * probe))(images)
    expected = np.einsum(
        "ih,jw,bijc->bhwc", bicubic_weights(10, 28), bicubic_weights(12, 14), probe
    )
    np.testing.assert_allclose(np.asarray(gradient), expected, atol=1e-5)


def test_unsupported_settings_are_named() -> None:
    with pytest.raises(ValueError, match="resample"):
        ImageProcessor.from_dict({"resample": 2})
    with pytest.raises(ValueError, match="aspect ratio"):
        ImageProcessor().grid(10, 4000)
