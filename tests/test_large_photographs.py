"""Edits in windows around the mask: which window, what is kept, and one area or several."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch_pipeline
from made_pictures import encoded, rgb_profile
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data

from onereward_jax import Editor
from onereward_jax.data.boxes import bounding_box
from onereward_jax.inference import edit_photograph
from onereward_jax.inference.crop_window import crop_window, window_mask
from onereward_jax.inference.mask_components import separate_areas
from onereward_jax.inference.photograph_edit import (
    Crop,
    EditPlan,
    PhotographEdit,
    edit_batch,
    prepare,
)
from onereward_jax.inference.stitch import colour_offset, seam, stitched
from onereward_jax.parallel import make_mesh
from onereward_jax.pictures import Photograph, read_picture, write_picture

FEATHER = 3
SAMPLING = {"num_inference_steps": 2, "true_cfg_scale": 1.0}


@pytest.fixture(scope="module")
def editor(tmp_path_factory) -> Editor:
    """Of random weights, for pictures of 64x64."""
    folder = tmp_path_factory.mktemp("editor")
    torch_pipeline.whole_pipeline(False).save_pretrained(folder)
    (folder / "editing.json").write_text('{"resolution": 64}')
    return Editor.from_pretrained(folder, mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """512x512."""
    return Image.fromarray(data.astronaut())


def masked(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    for box in boxes:
        ImageDraw.Draw(mask).ellipse(box, 255)
    return mask


def test_windows_hold_the_mask_with_its_context_in_the_shape_of_a_bucket() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        picture = tuple(rng.integers(20, 7000, 2).tolist())
        y0, x0 = (int(rng.integers(0, side)) for side in picture)
        y1, x1 = (int(rng.integers(least + 1, side + 1)) for least, side in zip((y0, x0), picture))
        context, margin = rng.uniform(1, 4), int(rng.integers(0, 20))
        resolution = 16 * int(rng.integers(4, 65))
        found = crop_window(
            (y0, x0, y1, x1),
            picture,
            resolution=resolution,
            context=context,
            margin=margin,
            aspect_ratios=(0.5, 0.75, 1.0, 1.5, 2.0),
        )
        height, width = picture
        assert 0 <= found.left <= max(x0 - margin, 0) and 0 <= found.top <= max(y0 - margin, 0)
        assert width >= found.right >= min(x1 + margin, width)
        assert height >= found.bottom >= min(y1 + margin, height)
        rows, columns = found.bottom - found.top, found.right - found.left
        assert not any(side % 16 for side in found.size) and min(found.size) >= 16
        area = found.size[0] * found.size[1] / resolution**2
        thin = min(rows / columns, columns / rows) < 1 / 3
        assert thin or 0.6 < area < 1.6
        # With room, the window is as large as asked for and has its bucket's shape.
        wanted = [
            max(context * (y1 - y0), resolution / 2),
            max(context * (x1 - x0), resolution / 2),
        ]
        if max(wanted) * 3 < min(picture):
            assert rows >= wanted[0] - 1 and columns >= wanted[1] - 1
            assert abs(columns / rows - found.size[1] / found.size[0]) < 2 / min(rows, columns)
            centre = (found.left + found.right) / 2 - (x0 + x1) / 2
            assert abs(centre) <= 1 or found.left == 0 or found.right == width


def test_no_line_of_a_mask_is_too_thin_for_the_model() -> None:
    edited = np.zeros((3000, 2000), bool)
    edited[700, :] = edited[:, 1999] = True
    found = np.asarray(window_mask(edited, (96, 64)))
    assert set(np.unique(found)) == {0, 255}
    assert found[:, -1].all() and found[700 * 96 // 3000].all() and (found > 0).sum() < 200


def test_beyond_the_seam_a_photograph_stays_and_inside_it_is_the_edit(editor, photograph) -> None:
    mask = masked(photograph.size, (300, 40, 380, 120))
    plan = EditPlan(Crop(), FEATHER, SAMPLING)
    ready = prepare(PhotographEdit(Photograph(photograph), mask, "remove", 3), plan, editor)
    ((area, window),) = ready.windows
    assert window.size == (64, 64) and window.right - window.left == 2 * 81
    (result,) = edit_batch(editor, [ready], plan)
    found = edit_photograph(editor, photograph, mask, "remove", feather=FEATHER, seed=3, **SAMPLING)
    before, after = np.asarray(photograph), np.asarray(result)
    np.testing.assert_array_equal(after, np.asarray(found.pixels))
    where = np.asarray(mask) > 0
    kept = seam(where, FEATHER) == 0
    np.testing.assert_array_equal(after[kept], before[kept])
    # Inside it is what the editor makes of the window, with its colours moved towards the rest.
    part = photograph.crop(window.box)
    small = part.resize((64, 64), Image.Resampling.LANCZOS)
    small_mask = window_mask(area.within(*window.box), (64, 64))
    (edit,) = editor(small, small_mask, "remove", seed=3, **SAMPLING)
    offset = colour_offset(small, edit, np.asarray(small_mask) > 0)
    expected = stitched(part, edit, area.within(*window.box), FEATHER, offset)
    np.testing.assert_array_equal(np.asarray(result.crop(window.box)), np.asarray(expected))
    assert np.abs(after[where].astype(int) - before[where]).mean() > 5


def test_a_photograph_keeps_its_colour_space(editor, photograph, tmp_path) -> None:
    """Display P3: the model sees sRGB, and what is kept is the same bytes with the same profile."""
    profile = rgb_profile("Display P3")
    file = encoded(photograph, "PNG", icc_profile=profile)
    mask = masked(photograph.size, (300, 40, 380, 120))
    arguments = dict(prompt="remove", feather=FEATHER, seed=3, **SAMPLING)
    found = edit_photograph(editor, file, mask, **arguments)
    write_picture(tmp_path / "out.png", found.pixels, found.profile)
    with Image.open(tmp_path / "out.png") as written:
        assert written.info["icc_profile"] == profile
        after = np.asarray(written)
    kept = seam(np.asarray(mask) > 0, FEATHER) == 0
    np.testing.assert_array_equal(after[kept], np.asarray(photograph)[kept])
    # The same light in sRGB gives the same edit, but for rounding.
    in_srgb = edit_photograph(editor, read_picture(file), mask, **arguments)
    difference = np.asarray(found.srgb(), int) - np.asarray(in_srgb.pixels, int)
    assert np.abs(difference).mean() < 1
    assert np.abs(np.asarray(found.pixels, int) - np.asarray(in_srgb.pixels)).mean() > 1


def test_a_window_that_is_the_whole_picture_is_the_plain_edit(editor, photograph) -> None:
    small = photograph.resize((64, 64))
    mask = masked(small.size, (16, 16, 48, 48))
    found = edit_photograph(editor, small, mask, "remove", feather=FEATHER, seed=1, **SAMPLING)
    (plain,) = editor(small, mask, "remove", seed=1, **SAMPLING)
    where = np.asarray(mask) > 0
    offset = colour_offset(small, plain, where)
    expected = stitched(small, plain, where, FEATHER, offset)
    np.testing.assert_array_equal(np.asarray(found.pixels), np.asarray(expected))


def test_areas_are_edited_one_by_one_or_together(editor, photograph) -> None:
    boxes = [(300, 40, 380, 120), (60, 400, 140, 480)]
    mask = masked(photograph.size, *boxes)
    one = PhotographEdit(Photograph(photograph), mask, "remove", 7)
    plan = EditPlan(Crop(components="together"), FEATHER, SAMPLING)
    assert [window.size for _, window in prepare(one, plan, editor).windows] == [(64, 64)]
    plan = EditPlan(Crop(components="each"), FEATHER, SAMPLING)
    steps = []
    (both,) = edit_batch(editor, [prepare(one, plan, editor)], plan, steps.append)
    assert steps == [1] * 4
    # Area k, from the top, is edited with seed + k, and sees what was made before.
    expected = photograph
    for number, box in enumerate(boxes):
        expected = edit_photograph(
            editor, expected, masked(photograph.size, box), "remove", feather=FEATHER,
            seed=7 + number, **SAMPLING,
        ).pixels  # fmt: skip
    np.testing.assert_array_equal(np.asarray(both), np.asarray(expected))


def test_separate_areas_are_those_of_the_mask_and_near_ones_are_one() -> None:
    rng = np.random.default_rng(0)
    for height, width, near in ((200, 300, 20), (1300, 1500, 40)):
        edited = np.zeros((height, width), bool)
        for _ in range(6):
            y, x = rng.integers(0, height - 30), rng.integers(0, width - 30)
            edited[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
        areas = list(separate_areas(edited, near))
        union = np.zeros_like(edited)
        for area in areas:
            y0, x0, y1, x1 = area.box
            assert bounding_box(area.edited) == (0, 0, y1 - y0, x1 - x0)
            assert not union[y0:y1, x0:x1][area.edited].any()
            union[y0:y1, x0:x1] |= area.edited
            np.testing.assert_array_equal(
                area.within(0, 0, width, height)[y0:y1, x0:x1], area.edited
            )
        np.testing.assert_array_equal(union, edited)
        step = -(-max(height, width) // 1024)
        for first in areas:
            others = edited & ~first.within(0, 0, width, height)
            if others.any():
                distance = ndimage.distance_transform_edt(~first.within(0, 0, width, height))
                assert distance[others].min() > near - 3 * step
    specks = np.zeros((1000, 1000), bool)
    specks[::50, ::50] = True
    with pytest.raises(ValueError, match="the mask has 400 separate areas, at most 64"):
        list(separate_areas(specks, 4))
    assert len(list(separate_areas(specks, 60))) == 1


def test_a_uniform_shift_of_colours_vanishes_and_the_bands_of_a_stitch_are_not_seen() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(60, 200, (70, 50, 3), dtype=np.uint8))
    source = noise.resize((500, 700), Image.Resampling.BICUBIC)
    shifted = Image.fromarray(np.asarray(source) + np.array([9, 0, 20], np.uint8))
    mask = np.asarray(masked(source.size, (100, 100, 300, 600))) > 0
    offset = colour_offset(source, shifted, mask)
    np.testing.assert_allclose(offset, np.broadcast_to([-9, 0, -20], offset.shape), atol=1e-3)
    np.testing.assert_array_equal(
        np.asarray(stitched(source, shifted, mask, 8, offset)), np.asarray(source)
    )
    # The same as all at once.
    opacity = seam(mask, 8)[..., None]
    change = np.asarray(shifted, np.float32) - np.asarray(source, np.float32)
    expected = np.rint(np.asarray(source, np.float32) + opacity * change)
    np.testing.assert_array_equal(np.asarray(stitched(source, shifted, mask, 8)), expected)
    everything = np.ones_like(mask)
    assert not colour_offset(source, shifted, everything).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context": 0.5}, "context is 0.5, a number of at least 1 expected"),
        ({"context": float("nan")}, "context is nan: a finite number"),
        ({"components": "all"}, "components is 'all', one of together, each expected"),
        ({"resolution": 60}, "resolution is 60, a multiple of 16 expected"),
        ({"feather": -1}, "feather is -1"),
        ({"mask": Image.new("L", (512, 512))}, "is empty"),
        ({"mask": masked((500, 300), (0, 0, 50, 50))}, "another aspect ratio"),
    ],
)
def test_mistakes_are_named(editor, photograph, changed: dict, message: str) -> None:
    arguments = {"image": photograph, "mask": masked(photograph.size, (9, 9, 90, 90))} | changed
    with pytest.raises(ValueError, match=message):
        edit_photograph(editor, prompt="remove", **arguments)
