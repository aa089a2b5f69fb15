"""The judge on picture files answers what transformers' processor and model answer."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from torch_judge import TorchJudge, saved_judge

from onereward_jax import Judge
from onereward_jax.parallel import make_mesh
from onereward_jax.tasks import Dimension, Task

EXACT, RESIZED = (48, 32), (70, 50)
"""(width, height): made of whole patches, and not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TorchJudge:
    return saved_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(folder: TorchJudge) -> Judge:
    return Judge.from_pretrained(folder.path, mesh=make_mesh(devices=jax.devices()[:1]))


def pictures(size: tuple[int, int], seed: int) -> list[Image.Image]:
    """Two of random blobs over the whole range."""
    noise = np.random.default_rng(seed).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in noise]


@pytest.mark.parametrize(("size", "atol"), [(EXACT, 1e-5), (RESIZED, 1e-2)])
def test_answers_equal_transformers(folder: TorchJudge, judge: Judge, size, atol: float) -> None:
    """Exactly without resizing; with it, ours does not round to grey levels in between."""
    questions = [
        (Task.FILL, Dimension.STRUCTURE, ""),
        (Task.FILL, Dimension.TEXT_ALIGNMENT, "a red apple"),
        (Task.REMOVAL, Dimension.REMOVAL_QUALITY, "remove"),
    ]
    found, expected = [], []
    for seed, (task, dimension, prompt) in enumerate(questions):
        a, b = pictures(size, seed)
        both = judge.score([a, b], [b, a], task=task, dimension=dimension, prompt=prompt)
        assert both.dtype == np.float32 and both.shape == (2,)
        found.append(both)
        expected.append(
            [folder.probability(*pair, task, dimension, prompt) for pair in ((a, b), (b, a))]
        )
    assert np.ptp(expected) > 0.05, "the judge must see and hear something"
    assert np.abs(np.subtract(*np.transpose(expected))).max() > 5 * atol, "and tell the orders"
    np.testing.assert_allclose(found, expected, atol=atol)


def test_pairs_do_not_depend_on_batch_devices_or_the_way_they_are_given(
    folder: TorchJudge, judge: Judge, tmp_path: Path
) -> None:
    a, b = pictures(EXACT, 0)
    a.save(tmp_path / "a.png")
    b.convert("RGBA").save(tmp_path / "b.png")
    question = {"task": "fill", "dimension": "structure"}
    expected = judge.score([a, b], [b, a], **question)
    wide = Judge.from_pretrained(folder.path, mesh=make_mesh(devices=jax.devices()[:4]))
    alone = wide.score(tmp_path / "a.png", tmp_path / "b.png", **question)
    np.testing.assert_allclose(alone, expected[:1], rtol=1e-4)
    whole = [np.asarray(one) for one in (a, b)]
    small = [one.resize((40, 24)) for one in (a, b)]
    mixed = judge.score(
        [np.stack(whole)[0], (tmp_path / "a.png").read_bytes(), small[0]],
        [whole[1].astype(np.float32) / 255, tmp_path / "b.png", small[1]],
        task=np.array(["Fill", "fill", "FILL"]),
        dimension="Structure",
        prompt=np.array(["a red apple"] * 3),
    )
    np.testing.assert_allclose(mixed[:2], expected[[0, 0]], rtol=1e-4)
    np.testing.assert_allclose(mixed[2:], judge.score(*small, **question), rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "erase"}, "unknown task 'erase'"),
        ({"dimension": "beauty"}, "unknown dimension 'beauty'; there are structure, consistency"),
        ({"task": "remove"}, "'structure' is not judged for object removal: removal_quality"),
        ({"dimension": "text_alignment"}, "needs a prompt"),
        ({"images_b": Image.new("RGB", (32, 48))}, "same size, these have 48x32 and 32x48"),
        ({"images_b": [Image.new("RGB", EXACT)] * 2}, "images_a has 1 images, images_b has 2"),
        ({"images_a": None}, "images_a is None"),
        ({"images_a": [], "images_b": []}, "images_a is empty"),
        ({"prompt": None}, "prompt is None: text"),
        ({"prompt": ["x", "y"]}, "2 prompts for 1 pairs"),
        ({"prompt": "word " * 99, "dimension": "text_alignment"}, "suffix_length 96"),
    ],
)
def test_mistakes_are_named(judge: Judge, changed: dict, message: str) -> None:
    a, b = pictures(EXACT, 0)
    arguments = {"images_a": a, "images_b": b, "task": "fill", "dimension": "structure"}
    with pytest.raises(ValueError, match=message):
        judge.score(**(arguments | changed))


def test_folders_that_lack_a_part_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="model: there is no folder .*nowhere"):
        Judge.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        Judge.from_pretrained(tmp_path)
