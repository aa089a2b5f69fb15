"""Colour noise on candidates: inside the mask, to all sides, as strong as it was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from onereward_jax.mini.colour_noise import add_colour_noise


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.4, 0.4, (32, 48, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    mask = np.zeros((32, 48, 1), np.float32)
    mask[8:24, 10:40] = 1
    return mask


def test_only_the_mask_is_changed_and_the_range_is_kept(image, mask) -> None:
    found = add_colour_noise(image, mask, 0.5, 1)
    assert found.dtype == np.float32 and np.abs(found).max() <= 1.0
    changed = (found != image).any(-1)
    np.testing.assert_array_equal(changed, mask[..., 0] > 0.5)


def test_strength_is_the_standard_deviation(image, mask) -> None:
    inside = mask[..., 0] > 0.5
    tints = np.stack([(add_colour_noise(image, mask, 0.1, s) - image)[inside] for s in range(200)])
    assert tints.std() == pytest.approx(0.1, rel=0.25)
    # as often to one side as to the other, pixel by pixel
    assert abs(tints.mean()) < 0.01
    assert np.array_equal(add_colour_noise(image, mask, 0.0, 1), image)


def test_the_same_seed_gives_the_same_picture(image, mask) -> None:
    first, again, other = (add_colour_noise(image, mask, 0.2, seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
