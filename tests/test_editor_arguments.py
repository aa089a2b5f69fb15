"""What the editor takes: pictures, prompts, numbers and seeds, whatever holds them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_pipeline
from PIL import Image

from onereward_jax import Editor
from onereward_jax.inference.seeds import seed_numbers, seed_parts
from onereward_jax.parallel import make_mesh

SIZE = (48, 32)
OPTIONS = {"num_inference_steps": 1, "true_cfg_scale": 1.0, "output_type": "np"}


@pytest.fixture(scope="module")
def editor(tmp_path_factory) -> Editor:
    folder = tmp_path_factory.mktemp("editor")
    torch_pipeline.whole_pipeline(False).save_pretrained(folder)
    return Editor.from_pretrained(folder, mesh=make_mesh(devices=jax.devices()[:1]))


def picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    found = np.zeros(SIZE[::-1], np.uint8)
    found[8:24, 8:30] = 255
    return found


def test_pictures_may_be_arrays_opened_bytes_or_paths(
    editor: Editor, mask: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    pair = [picture(0), picture(1)]
    expected = editor(pair, Image.fromarray(mask), ["a hat", "a cup"], seed=5, **OPTIONS)
    assert np.abs(expected[0] - expected[1]).mean() > 0.01
    arrays = np.stack([np.asarray(one) for one in pair])
    monkeypatch.setenv("HOME", str(tmp_path))
    files = []
    for number, one in enumerate(pair):
        one.save(tmp_path / f"{number}.png")
        stream = io.BytesIO()
        one.save(stream, "png")
        files.append(stream.getvalue())
    for pictures in (
        arrays,
        list(arrays),
        jnp.asarray(arrays),
        arrays.astype(np.float32) / 255,
        arrays / 255.0,
        tuple(files),
        list(map(io.BytesIO, files)),
        ["~/0.png", tmp_path / "1.png"],
        iter(pair),
    ):
        for masks in (mask, mask > 0, mask[..., None], mask / 255.0, np.stack([mask, mask])):
            found = editor(
                pair if isinstance(pictures, Iterator) else pictures,
                masks,
                np.array(["a hat", "a cup"]),
                np.str_("nsfw"),
                seed=np.array([5, 6]),
                **OPTIONS,
            )
            np.testing.assert_array_equal(found, expected)
    (alone,) = editor(arrays[1], mask, np.str_("a cup"), seed=np.int64(6), **OPTIONS)
    np.testing.assert_allclose(alone, expected[1], atol=2e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": None}, "image is None"),
        ({"image": []}, "image is empty"),
        ({"image": [3]}, r"image (holds 3|is \[3\]): a path, bytes, an opened"),
        ({"image": np.full((32, 48, 3), 7.5)}, "array"),
        ({"image": np.zeros((3, 32, 48, 5))}, "array"),
        ({"image": np.zeros((3, 32, 48))}, "channels come last"),
        ({"image": "https://a.org/b.png"}, "it is a URL"),
        ({"prompt": b"a hat"}, "prompt is b'a hat': text, or a list of texts, expected"),
        ({"prompt": None}, "prompt is None"),
        ({"negative_prompt": [1]}, "negative_prompt is 1: text"),
        ({"seed": 1.5}, "seed is 1.5: an integer expected"),
        ({"seed": True}, "seed is True: an integer expected"),
        ({"seed": "3"}, "seed is '3': an integer expected"),
        ({"seed": 2**64}, f"seed is {2**64}, which does not fit into 64 bits"),
        ({"seed": [-(2**63) - 1]}, "does not fit into 64 bits"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5: an integer expected"),
        ({"num_inference_steps": 0}, "num_steps is 0, at least 1"),
        ({"true_cfg_scale": float("nan")}, "true_cfg_scale is nan: a finite number expected"),
        ({"guidance_scale": "3"}, "guidance_scale is '3': a finite number expected"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"height": 32.0}, "height is 32.0: an integer expected"),
    ],
)
def test_others_are_refused_in_a_sentence(
    editor: Editor, mask: np.ndarray, changed: dict, message: str
) -> None:
    arguments = {"image": picture(0), "mask": mask, "prompt": "a hat"} | changed
    with pytest.raises(ValueError, match=message) as error:
        editor(**arguments)
    assert "\n" not in str(error.value)


def test_seeds_of_64_bits_give_noise_of_their_own_and_small_ones_what_they_gave(
    editor: Editor,
) -> None:
    low = [0, 7, 2**31 - 1, -1, -(2**31)]
    parts = seed_parts(low)
    assert not parts.high.any() and parts.low.tolist() == low
    size = (32, 48)
    for seed, noise in zip(low, editor.steps.noise(parts, size)):
        key = jax.random.key(np.uint32(seed % 2**32))
        np.testing.assert_array_equal(noise, editor.functions.noise(key, 1, size)[0])
    # -1 and 2**64 - 1 are one seed; all others differ.
    others = [*low, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**63, 2**63 + 7, 2**64 - 2**31 - 1]
    drawn = editor.steps.noise(seed_parts([*others, 2**64 - 1]), size)
    drawn = np.asarray(drawn).reshape(len(others) + 1, -1)
    assert len(np.unique(drawn[:-1], axis=0)) == len(others)
    np.testing.assert_array_equal(drawn[-1], drawn[low.index(-1)])
    correlations = np.corrcoef(drawn[:-1])[np.triu_indices(len(others), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(drawn.shape[1])
    assert seed_numbers(np.int64(5), 3) == [5, 6, 7]
    assert seed_numbers(np.array([5, 9], np.uint64), 2) == [5, 9]


def test_weights_that_give_no_numbers_are_said(editor: Editor, mask: np.ndarray) -> None:
    count = editor.functions.token_count((32, 48))
    latents = np.full((1, count, editor.functions.latent_channels), np.nan, np.float32)
    with pytest.raises(ValueError, match="values that are not finite"):
        editor(picture(0), mask, "a hat", latents=latents, **OPTIONS)
