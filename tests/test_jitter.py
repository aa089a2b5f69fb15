"""What the judge's eyes get: noise and shifts that leave the pair's order in peace."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.reward import Jitter, jitter_pairs

SIDE, COUNT = 12, 6

NO_PROMPT = jnp.zeros(COUNT, bool)


@pytest.fixture(scope="module")
def pairs() -> tuple[jax.Array, jax.Array]:
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, COUNT, SIDE, SIDE, 3)).astype(np.float32)
    return jnp.asarray(a), jnp.asarray(b)


@pytest.fixture(scope="module")
def keys() -> jax.Array:
    return jax.random.split(jax.random.key(3), COUNT)


def test_zeros_leave_the_images_alone(pairs, keys) -> None:
    for found, given in zip(jitter_pairs(keys, *pairs, NO_PROMPT, Jitter()), pairs):
        np.testing.assert_array_equal(found, given)


def test_a_shift_moves_each_image_by_itself_and_repeats_its_border(pairs, keys) -> None:
    reach, moves = 2, []
    for found, given in zip(jitter_pairs(keys, *pairs, NO_PROMPT, Jitter(shift=reach)), pairs):
        for moved, image in zip(np.asarray(found), given):
            padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
            windows = {
                (y, x): padded[y : y + SIDE, x : x + SIDE]
                for y in range(2 * reach + 1)
                for x in range(2 * reach + 1)
            }
            same = [place for place, window in windows.items() if np.array_equal(window, moved)]
            assert len(same) == 1
            moves += same
    assert len(set(moves)) > 4
    assert moves[:6] != moves[6:], "both images of a pair were moved alike"


def test_noise_is_as_strong_on_both_and_never_above_the_bound(pairs, keys) -> None:
    found = jitter_pairs(keys, *pairs, NO_PROMPT, Jitter(noise=0.2))
    a, b = (np.std(np.asarray(new) - old, axis=(1, 2, 3)) for new, old in zip(found, pairs))
    np.testing.assert_allclose(a, b, rtol=0.15)
    assert 0.0 < a.min() < 0.5 * a.max() and a.max() < 0.2 * 1.1


def test_a_pair_has_its_own_draws_whatever_the_batch(pairs, keys) -> None:
    jitter = Jitter(noise=0.1, shift=3)
    whole = jitter_pairs(keys, *pairs, NO_PROMPT, jitter)
    part = jitter_pairs(keys[2:4], pairs[0][2:4], pairs[1][2:4], NO_PROMPT[2:4], jitter)
    for some, all_of_them in zip(part, whole):
        np.testing.assert_array_equal(some, all_of_them[2:4])


def test_the_gradient_reaches_every_pixel_that_is_seen(pairs, keys) -> None:
    jitter = Jitter(noise=0.1, shift=1)

    def total(images: jax.Array) -> jax.Array:
        return jnp.sum(jitter_pairs(keys, images, pairs[1], NO_PROMPT, jitter)[0])

    slope = jax.grad(total)(pairs[0])
    assert float(jnp.sum(slope)) == pytest.approx(pairs[0].size)
    assert (np.asarray(slope)[:, 1:-1, 1:-1] == 1.0).all()


def test_a_negative_turns_brightness_over_and_keeps_hues(pairs, keys) -> None:
    for found, given in zip(jitter_pairs(keys, *pairs, NO_PROMPT, Jitter(negative=1.0)), pairs):
        found, given = np.asarray(found), np.asarray(given)
        np.testing.assert_allclose(found.mean(-1), -given.mean(-1), atol=1e-6)
        colours = [image - image.mean(-1, keepdims=True) for image in (found, given)]
        np.testing.assert_allclose(*colours, atol=1e-6)


def test_both_of_a_pair_are_turned_together_as_often_as_asked_and_not_for_a_prompt(pairs) -> None:
    count = 400
    keys = jax.random.split(jax.random.key(0), count)
    a, b = (jnp.repeat(images[:1], count, axis=0) for images in pairs)
    prompted = jnp.arange(count) >= count // 2
    found = jitter_pairs(keys, a, b, prompted, Jitter(negative=0.5))
    signs = [
        np.asarray(jnp.sum(new.mean(-1) * old.mean(-1), (1, 2)) < 0)
        for new, old in zip(found, (a, b))
    ]
    assert np.array_equal(*signs)
    assert signs[0][: count // 2].mean() == pytest.approx(0.5, abs=0.1)
    assert not signs[0][count // 2 :].any()


@pytest.mark.parametrize(
    "field, value, says", [("shift", -1, "-1, below 0"), ("negative", 1.5, "1.5: a probability")]
)
def test_a_field_out_of_range_is_named(field, value, says) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is {says}"):
        Jitter(**{field: value})
