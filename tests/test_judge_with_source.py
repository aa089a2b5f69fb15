"""A judge that sees the source picture, whole or cropped, answers what transformers answers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image, ImageFilter
from torch_judge import TorchJudge, saved_judge

from onereward_jax import Judge
from onereward_jax.parallel import make_mesh
from onereward_jax.reward import JudgeView, packaged_template
from onereward_jax.reward.judge_loader import judge_view, read_reward_model, write_judge_template
from onereward_jax.reward.judge_view import crop_box
from onereward_jax.tasks import Dimension, Task

SIZE = (48, 32)
QUESTION = (Task.FILL, Dimension.TEXT_ALIGNMENT, "a red apple")
CROPPED = JudgeView(crop=1.5, source="outlined")
BLANKED = JudgeView(source="blanked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TorchJudge:
    return saved_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Source, result, other result."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize(SIZE, Image.Resampling.BICUBIC) for one in noise]


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    edited = np.zeros(SIZE[::-1], np.uint8)
    edited[8:18, 20:31] = 255
    edited[10:12, 31] = 255
    return Image.fromarray(edited)


def shown(view: JudgeView, pictures: list[Image.Image], mask: Image.Image) -> list[Image.Image]:
    """What the judge sees, made by Pillow."""
    source = pictures[0].copy()
    if view.source == "blanked":
        source.paste((128, 128, 128), mask=mask)
    else:
        grown = np.asarray(mask.filter(ImageFilter.MaxFilter(3))) > np.asarray(mask)
        source.paste((255, 0, 255), mask=Image.fromarray(grown))
    seen = [source, *pictures[1:]]
    if view.crop:
        top, left, bottom, right = crop_box(np.asarray(mask) > 0, view.crop)
        assert (bottom - top, right - left) != SIZE[::-1]
        box = (left, top, right, bottom)
        seen = [one.crop(box).resize(SIZE, Image.Resampling.BICUBIC) for one in seen]
    return seen


@pytest.mark.parametrize(("view", "atol"), [(BLANKED, 1e-5), (CROPPED, 1e-2)], ids=repr)
def test_answers_equal_transformers(folder, pictures, mask, view, atol) -> None:
    """Exactly; with a crop, ours does not round to grey levels in between."""
    write_judge_template(folder.path, packaged_template().showing(view.source), view)
    assert judge_view(folder.path) == view
    judge = Judge.from_pretrained(folder.path, mesh=make_mesh(devices=jax.devices()[:1]))
    task, dimension, prompt = QUESTION
    question = {"task": task, "dimension": dimension, "prompt": prompt}
    source, a, b = pictures
    found = judge.score([a, b], [b, a], **question, masks=mask, sources=source)
    template = packaged_template().showing(view.source)
    source, a, b = shown(view, pictures, mask)
    expected = [folder.probability(*pair, *QUESTION, template, source) for pair in ((a, b), (b, a))]
    assert np.abs(expected[0] - folder.probability(a, b, *QUESTION)) > 5 * atol, "source counts"
    np.testing.assert_allclose(found, expected, atol=atol)

    scorer, queries = read_reward_model(folder.path, SIZE[::-1])
    asked = queries.encode_dimensions([task], [dimension], [prompt])
    pixels = [np.asarray(one, np.float32)[None] / 127.5 - 1 for one in pictures]
    asked = asked._replace(**view.inputs(np.asarray(mask)[None] > 0, pixels[0]))
    both = jax.jit(scorer.score_both_orders)(judge.params, *pixels[1:], asked)
    np.testing.assert_allclose(np.exp(both[0][0, :, 0]), found, rtol=1e-4)

    needs = r"this judge was trained to see .*the source picture, \w+: give the masks of the edits"
    with pytest.raises(ValueError, match=needs):
        judge.score(a, b, **question)
    with pytest.raises(ValueError, match=r"give the sources of the edits \(sources, --source"):
        judge.score(a, b, **question, masks=mask)
