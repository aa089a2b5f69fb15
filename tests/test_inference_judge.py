"""The judge on picture files answers what transformers' processor and model answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch_judge import random_judge

from onereward_jax import Judge
from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.parallel import make_mesh
from onereward_jax.reward import packaged_template
from onereward_jax.reward.query_template import IMAGE, IMAGE_TOKEN
from onereward_jax.tasks import Dimension, Task

EXACT, RESIZED = (48, 32), (70, 50)
"""(width, height): made of whole patches, and not."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A tiny judge as transformers wrote it, and the parts it was written from."""

    path: Path
    model: transformers.Qwen2_5_VLForConditionalGeneration
    tokenizer: transformers.PreTrainedTokenizerBase
    processor: transformers.Qwen2VLImageProcessor

    def probability(
        self, a: Image.Image, b: Image.Image, task: Task, dimension: Dimension, prompt: str
    ) -> float:
        """P("Yes") by transformers alone."""
        images = self.processor([a, b], return_tensors="pt")
        count = int(images["image_grid_thw"][0].prod()) // self.processor.merge_size**2
        image = IMAGE.format(image=IMAGE_TOKEN * count)
        template = packaged_template()
        asked = template.task_text(task) + template.suffix_text(dimension, prompt)
        text = template.head + 2 * image + asked
        inputs = self.tokenizer(text, return_tensors="pt")
        is_image = inputs["input_ids"] == self.model.config.image_token_id
        with torch.no_grad():
            logits = self.model(**inputs, **images, mm_token_type_ids=is_image.int()).logits
        yes = self.tokenizer.convert_tokens_to_ids("Yes")
        return float(torch.softmax(logits[0, -1].double(), 0)[yes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("judge")
    tokenizer = qwen_tokenizer(packaged_template().texts())
    processor = transformers.Qwen2VLImageProcessor(
        patch_size=8, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    model = random_judge(tokenizer, 0.3)
    with torch.no_grad():
        # As it is, two words of some hundred would share less than a per cent.
        words = model.get_input_embeddings().weight
        words[tokenizer.convert_tokens_to_ids("Yes")] *= 3
    for part in (model, tokenizer, processor):
        part.save_pretrained(path)
    return Folder(path, model, tokenizer, processor)


@pytest.fixture(scope="module")
def judge(folder: Folder) -> Judge:
    return Judge.from_pretrained(folder.path, mesh=make_mesh(devices=jax.devices()[:1]))


def pictures(size: tuple[int, int], seed: int) -> list[Image.Image]:
    """Two of random blobs over the whole range."""
    noise = np.random.default_rng(seed).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in noise]


@pytest.mark.parametrize(("size", "atol"), [(EXACT, 1e-5), (RESIZED, 1e-2)])
def test_answers_equal_transformers(folder: Folder, judge: Judge, size, atol: float) -> None:
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
    folder: Folder, judge: Judge, tmp_path: Path
) -> None:
    a, b = pictures(EXACT, 0)
    a.save(tmp_path / "a.png")
    b.convert("RGBA").save(tmp_path / "b.png")
    question = {"task": "fill", "dimension": "structure"}
    expected = judge.score([a, b], [b, a], **question)
    wide = Judge.from_pretrained(folder.path, mesh=make_mesh(devices=jax.devices()[:4]))
    alone = wide.score(tmp_path / "a.png", tmp_path / "b.png", **question)
    np.testing.assert_allclose(alone, expected[:1], rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "erase"}, "unknown task 'erase'"),
        ({"dimension": "beauty"}, "'beauty' is not judged for image fill: structure, consistency"),
        ({"task": "remove"}, "'structure' is not judged for object removal: removal_quality"),
        ({"dimension": "text_alignment"}, "needs a prompt"),
        ({"images_b": Image.new("RGB", (32, 48))}, "same size, these have 48x32 and 32x48"),
        ({"images_b": [Image.new("RGB", EXACT)] * 2}, "images_a has 1 images, images_b has 2"),
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
