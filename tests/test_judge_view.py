"""What the judge sees: the crop around the mask, the same in training, in RL and in inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from onereward_jax.data.boxes import bounding_box
from onereward_jax.reward import JudgeView
from onereward_jax.reward.judge_view import LEAST, crop_box, cropped, mirrored_box

SIZE = (24, 36)


def images(seed: int = 0, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *SIZE, 3)).astype(np.float32)


def mask_of(box) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def test_the_box_of_the_whole_picture_changes_no_bit():
    pictures = images()
    whole = np.array([(0, 0, *SIZE)] * len(pictures), np.int32)
    np.testing.assert_array_equal(jax.jit(cropped)(pictures, whole), pictures)
    for mask in (np.ones(SIZE, bool), np.zeros(SIZE, bool), mask_of((0, 3, SIZE[0], 9))):
        assert crop_box(mask, 1.0) == (0, 0, *SIZE)


def test_a_crop_is_what_pillow_makes_of_the_cut_out_part():
    pictures, boxes = images(), np.array([(3, 5, 13, 20), (0, 18, 12, 36)], np.int32)
    found = np.asarray(jax.jit(cropped)(pictures, boxes))
    for picture, box, ours in zip(pictures, boxes.tolist(), found):
        for channel in range(3):
            part = Image.fromarray(picture[box[0] : box[2], box[1] : box[3], channel])
            theirs = part.resize(SIZE[::-1], Image.Resampling.BICUBIC)
            np.testing.assert_allclose(ours[..., channel], np.asarray(theirs), atol=1e-5)


def test_only_the_pixels_inside_the_box_get_a_gradient():
    box = (3, 5, 13, 20)

    def loss(pictures):
        weights = 1.0 + np.arange(np.prod(pictures.shape)).reshape(pictures.shape)
        return jnp.sum(weights * cropped(pictures, jnp.array([box])))

    slopes = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(images(count=1))))[0]
    np.testing.assert_array_equal((slopes != 0).all(-1), mask_of(box))
    np.testing.assert_array_equal((slopes != 0).any(-1), mask_of(box))


@pytest.mark.parametrize("crop", [1.0, 1.7, 4.0])
def test_a_box_covers_the_mask_with_context_and_keeps_the_aspect_ratio(crop):
    rng = np.random.default_rng(1)
    for _ in range(200):
        start = rng.integers(0, SIZE)
        stop = np.minimum(start + rng.integers(1, 12, 2), SIZE)
        mask = mask_of((*start, *stop))
        top, left, bottom, right = crop_box(mask, crop)
        inner, (rows, columns) = bounding_box(mask), (bottom - top, right - left)
        assert 0 <= top <= inner[0] and inner[2] <= bottom <= SIZE[0]
        assert 0 <= left <= inner[1] and inner[3] <= right <= SIZE[1]
        assert abs(columns - rows * SIZE[1] / SIZE[0]) <= 0.5
        assert rows >= LEAST * SIZE[0]
        assert rows == SIZE[0] or (
            rows >= crop * (inner[2] - inner[0]) and columns + 0.5 >= crop * (inner[3] - inner[1])
        )


def test_a_mirrored_pair_is_cropped_to_the_mirrored_part():
    picture, box = images(count=1)[0], np.array([3, 5, 13, 20], np.int32)
    pictures = np.stack([picture, picture[:, ::-1]])
    boxes = np.stack([box, mirrored_box(box, SIZE[1])])
    crop, turned = jax.jit(cropped)(pictures, boxes)
    np.testing.assert_allclose(turned, crop[:, ::-1], atol=1e-5)


def test_views_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"^crop is 0\.5: 0, or a number of at least 1 expected"):
        JudgeView(crop=0.5)
