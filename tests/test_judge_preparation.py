"""Image processor and tokenizer of a judge: read as transformers reads them, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from PIL import Image
from torch_judge import TorchJudge, edit, saved_judge

from onereward_jax.reward.judge_loader import read_reward_model
from onereward_jax.tasks import Dimension, Task

SIDE = 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> TorchJudge:
    return saved_judge(tmp_path_factory.mktemp("saved") / "judge")


@pytest.fixture
def folder(saved: TorchJudge, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(saved.path, tmp_path / "judge"))


PROCESSORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pixels null": lambda c: c.update(min_pixels=None, max_pixels=None),
    "pixels only": lambda c: (c.pop("size"), c.update(min_pixels=1600, max_pixels=2500)),
    "pixels before size": lambda c: c.update(min_pixels=1600, max_pixels=2500),
    "one of both": lambda c: c.update(max_pixels=1024),
    "nothing": lambda c: [c.pop(name, None) for name in ("size", "min_pixels", "max_pixels")],
    "other statistics": lambda c: c.update(image_mean=[0.5] * 3, image_std=[0.25, 0.5, 0.5]),
    "one number": lambda c: c.update(image_mean=0.5, image_std=0.5),
    "fast": lambda c: c.update(image_processor_type="Qwen2VLImageProcessorFast"),
}


@pytest.mark.parametrize("nested", [False, True], ids=["own file", "processor_config.json"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_the_image_processor_is_read_as_transformers_reads_it(
    folder: Path, name: str, nested: bool
) -> None:
    path = folder / "preprocessor_config.json"
    edit(path, PROCESSORS[name])
    if nested:  # which counts before a file of its own
        content = json.loads(path.read_text())
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": content}))
        edit(path, lambda other: other.update(size={"shortest_edge": 64, "longest_edge": 64}))
    ours = read_reward_model(folder, (48, 40)).scorer.processor
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    expected = theirs([Image.fromarray(noise)], return_tensors="pt")
    assert [list(ours.grid(48, 40))] == expected["image_grid_thw"].tolist()
    found = np.asarray(ours(jnp.asarray(noise[None] / 127.5 - 1, jnp.float32))[0])
    levels = np.abs(found - expected["pixel_values"].numpy()) * min(ours.image_std) * 255
    assert levels.max() < 2  # theirs rounds to grey levels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_normalize": False}, "do_normalize is False, only True is read"),
        ({"do_resize": False}, "do_resize is False, only True is read"),
        ({"do_rescale": False}, "do_rescale is False, only True is read"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is .*, not 1/255"),
        ({"resample": 2}, "resample is 2, only 3 is read"),
        ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type is 'CLIPImage"),
        ({"size": {"height": 224, "width": 224}}, "there is neither min_pixels nor shortest_edge"),
        ({"size": 224}, "size is 224, a JSON object expected"),
        ({"min_pixels": 4096, "max_pixels": 1024}, "min_pixels 4096 is above max_pixels 1024"),
        ({"min_pixels": False}, "min_pixels is False, an integer from 1"),
        ({"image_mean": [0.5]}, "image_mean is not one number per channel"),
        ({"image_std": [0, 1, 1]}, "image_std is .*, a list .a number above 0 each. expected"),
        ({"patch_size": 14}, "image processor's patch_size is 14, but config.json's .* has 8"),
        ({"merge_size": 4}, "image processor's merge_size is 4"),
    ],
)
def test_settings_of_the_image_processor_that_are_not_read_are_named(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit(folder / "preprocessor_config.json", lambda content: content.update(change))
    with pytest.raises(ValueError, match=message) as caught:
        read_reward_model(folder, (SIDE, SIDE))
    assert str(folder) in str(caught.value)


def test_a_vocabulary_in_two_files_is_the_same_tokenizer(folder: Path, saved: TorchJudge) -> None:
    """vocab.json and merges.txt, as older versions wrote them, without tokenizer.json."""
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    before = read_reward_model(folder, (SIDE, SIDE)).queries
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["vocab"]))
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in whole["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    after = read_reward_model(folder, (SIDE, SIDE)).queries
    asked = [Task.FILL], [Dimension.TEXT_ALIGNMENT], ["a red apple"]
    for ours, theirs in zip(before.encode_dimensions(*asked), after.encode_dimensions(*asked)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["text_config"].update(vocab_size=50))
    with pytest.raises(ValueError, match="a tokenizer of .* tokens, but its config.json says"):
        read_reward_model(folder, (SIDE, SIDE))


@pytest.mark.parametrize("length", ["a word", [4096], 0, True])
def test_a_length_that_is_no_integer_is_named(folder: Path, length: Any) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=length))
    with pytest.raises(ValueError, match="judge.*(model_max_length is|no tokenizer can be read)"):
        read_reward_model(folder, (SIDE, SIDE))
