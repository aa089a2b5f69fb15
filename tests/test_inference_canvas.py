"""Extending the canvas, pasting an edit back, and what is read from a folder of requests."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onereward_jax.inference import Padding, extended, paste_back
from onereward_jax.inference.folder_edits import batches
from onereward_jax.tasks import Task, task_named

WIDTH, HEIGHT = 40, 30


def noise(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def box_mask(scale: int = 1) -> Image.Image:
    mask = Image.new("L", (WIDTH * scale, HEIGHT * scale))
    mask.paste(255, tuple(edge * scale for edge in (10, 10, 20, 20)))
    return mask


def test_the_canvas_holds_the_picture_and_the_mask_all_the_rest() -> None:
    picture, padding = noise(0), Padding.parse("3, 0,7,5")
    canvas, mask = extended(picture, padding)
    assert canvas.size == mask.size == (WIDTH + 10, HEIGHT + 5)
    inside = np.s_[0:HEIGHT, 3 : 3 + WIDTH]
    np.testing.assert_array_equal(np.asarray(canvas)[inside], np.asarray(picture))
    kept = np.asarray(mask) == 0
    assert kept[inside].all() and kept.sum() == WIDTH * HEIGHT
    assert (np.asarray(mask)[~kept] == 255).all()
    # neutral under the mask, where it must not be told from what the model is shown
    assert np.ptp(np.asarray(canvas)[~kept]) == 0


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,x", "-1,2,3,4", "0,0,0,0", ""])
def test_bad_paddings_are_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=f"pad '{text}'"):
        Padding.parse(text)


@pytest.mark.parametrize("scale", [1, 2])
def test_pasting_back_keeps_the_source_beyond_the_seam_and_the_edit_inside(scale: int) -> None:
    """Also with a mask of another size than the picture."""
    source, edited, feather = noise(1), noise(2), 4
    found = np.asarray(paste_back(source, edited, box_mask(scale), feather), int)
    before, after = np.asarray(source, int), np.asarray(edited, int)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[10:20, 10:20] = True
    near = np.zeros_like(inside)
    near[10 - feather : 20 + feather, 10 - feather : 20 + feather] = True
    np.testing.assert_array_equal(found[inside], after[inside])
    np.testing.assert_array_equal(found[~near], before[~near])
    # along a row the share of the edit falls by the same step from pixel to pixel
    share = (found - before)[15, 19:26].sum(-1) / (after - before)[15, 19:26].sum(-1)
    np.testing.assert_allclose(share, np.clip(1 - np.arange(7) / 5, 0, 1), atol=0.1)
    hard = np.asarray(paste_back(source, edited, box_mask(scale), 0))
    np.testing.assert_array_equal(hard, np.where(inside[..., None], after, before))


def test_an_edit_of_another_size_is_pasted_in_the_size_of_the_source() -> None:
    source = noise(3)
    whole = Image.new("L", source.size, 255)
    edited = noise(4, 32, 16)
    found = paste_back(source, edited, whole)
    expected = edited.resize(source.size, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_tasks_by_the_names_of_the_command_line_and_of_data_sets() -> None:
    assert task_named("extend", "a lake") == Task.EXTEND_WITH_PROMPT
    assert task_named("extend") == task_named("extend_without_prompt") == "extend_without_prompt"
    assert task_named("remove") == task_named(Task.REMOVAL) == Task.REMOVAL
    with pytest.raises(ValueError, match="unknown task 'erase'; there are fill, extend, remove,"):
        task_named("erase")


def test_pictures_of_one_size_share_batches_and_none_is_left_out() -> None:
    sizes = [(16, 16), (32, 16), (16, 16), (16, 16), (32, 16)]
    parts = list(batches(sizes, 2))
    assert sorted(index for part in parts for index in part) == [0, 1, 2, 3, 4]
    assert all(len({sizes[index] for index in part}) == 1 for part in parts)
    assert [len(part) for part in parts] == [2, 1, 2]
