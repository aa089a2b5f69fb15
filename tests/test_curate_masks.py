"""Masks for photographs: their properties for any size; which pictures can serve which task."""

import numpy as np
import pytest

from onereward_jax.common.rng import generator
from onereward_jax.curation.data_folder import is_usable
from onereward_jax.curation.draw_triplets import Known, MaskSettings, draw_triplet, draw_triplets
from onereward_jax.curation.mask_makers import (
    MOST_EXTENDED,
    grown_box,
    grown_outline,
    random_borders,
    random_box,
    random_strokes,
)
from onereward_jax.curation.segmentation import GivenObject
from onereward_jax.curation.words_and_captions import Word
from onereward_jax.data.aspect_buckets import bucket_sizes
from onereward_jax.tasks import Task

SIZES = [(64, 64), (480, 640), (1000, 200), (90, 901)]
AREA, BORDER = (0.05, 0.4), (0.15, 0.4)
MAKERS = {
    "box": lambda rng, size: random_box(rng, size, AREA),
    "strokes": lambda rng, size: random_strokes(rng, size, AREA),
    "all sides": lambda rng, size: random_borders(rng, size, BORDER, all_sides=True),
    "some sides": lambda rng, size: random_borders(rng, size, BORDER, all_sides=False),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_masks_are_neither_empty_nor_full_and_reproducible(name, size):
    seen = set()
    for number in range(20):
        mask = MAKERS[name](generator(number, "mask"), size)
        assert mask.shape == size and mask.dtype == bool
        assert mask.any() and not mask.all()
        np.testing.assert_array_equal(mask, MAKERS[name](generator(number, "mask"), size))
        seen.add(mask.tobytes())
    assert len(seen) > 10  # seeds count


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_and_strokes_have_an_area_in_the_range(size):
    for number in range(40):
        box = MAKERS["box"](generator(number, "box"), size)
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)  # a box, inside the picture
        rounding = 0.5 / len(rows) + 0.5 / len(columns) + 0.01
        assert AREA[0] * (1 - rounding) <= box.mean() <= AREA[1] * (1 + rounding)
        strokes = MAKERS["strokes"](generator(number, "strokes"), size)
        assert 0.8 * AREA[0] <= strokes.mean() <= 1.1 * AREA[1]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_borders_touch_the_edge_and_leave_a_rectangle(size):
    counts = set()
    for number in range(40):
        for all_sides in (True, False):
            mask = random_borders(generator(number, "b"), size, BORDER, all_sides=all_sides)
            left = ~mask
            rows, columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
            assert left.sum() == len(rows) * len(columns)
            widths = (
                rows[0],
                size[0] - 1 - rows[-1],
                columns[0],
                size[1] - 1 - columns[-1],
            )
            for pair, side in ((widths[:2], size[0]), (widths[2:], size[1])):
                assert sum(pair) <= MOST_EXTENDED * side + 1
            extended = sum(width > 0 for width in widths)
            assert max(widths) <= BORDER[1] * min(size) + 1
            assert extended == 4 if all_sides else 1 <= extended <= 3
            counts.add(extended)
    assert counts == {1, 2, 3, 4}


def test_outlines_grow_by_a_round_brush_and_boxes_by_their_edges():
    mask = np.zeros((100, 200), bool)
    mask[50, 100] = True
    grown = grown_outline(mask, 0.1)
    y, x = np.nonzero(grown)
    assert grown.sum() == pytest.approx(np.pi * 10**2, rel=0.05)
    assert np.hypot(y - 50, x - 100).max() == 10
    np.testing.assert_array_equal(grown_outline(mask, 0.001), mask)
    mask[0, 0] = True  # at the edge it is clipped
    assert grown_outline(mask, 0.1).shape == mask.shape
    box = grown_box((100, 200), (2, 90, 12, 110), 0.1)
    expected = np.zeros((100, 200), bool)
    expected[:22, 80:120] = True
    np.testing.assert_array_equal(box, expected)


KINDS = {
    Task.FILL: {"boxes": 1.0, "strokes": 1.0, "silhouettes": 1.0, "words": 1.0},
    Task.EXTEND_WITH_PROMPT: {"all_sides": 1.0, "some_sides": 1.0},
    Task.EXTEND_WITHOUT_PROMPT: {"all_sides": 1.0, "some_sides": 1.0},
    Task.REMOVAL: {"silhouettes": 1.0, "boxes": 1.0},
}
POLYGON = [[20, 20, 60, 20, 60, 70]]
CAT, UNNAMED, CROWD = (
    GivenObject(label, crowd, POLYGON)
    for label, crowd in (("cat", False), ("", False), ("person", True))
)
WORD = Word((10, 10, 20, 40), "SALE")
EVERYTHING = {"objects": (CAT,), "words": (WORD,), "caption": "a cat"}
SIZE = (120, 160)


def drawn(known, *, weights=None, kinds=None, count=60, usable=lambda mask: True):
    settings = MaskSettings(
        weights or dict.fromkeys(KINDS, 1.0), KINDS | (kinds or {}), AREA, BORDER, 0.02
    )
    rngs = (generator(number, "draw") for number in range(count))
    return [draw_triplet(rng, known, settings, usable) for rng in rngs]


def test_prompts_and_targets_come_from_what_is_known():
    prompts = {}
    for one in drawn(Known("a", SIZE, **EVERYTHING), count=150):
        prompts.setdefault((one.task, one.kind), set()).add(one.prompt)
        assert one.wanted is one.task
        assert one.has_target == one.task.startswith("extend")
    assert prompts == {
        **{(Task.FILL, kind): {"a cat"} for kind in ("boxes", "strokes")},
        (Task.FILL, "silhouettes"): {"cat"},
        (Task.FILL, "words"): {'the word "SALE"'},
        **{(Task.EXTEND_WITH_PROMPT, kind): {"a cat"} for kind in ("all_sides", "some_sides")},
        **{(Task.EXTEND_WITHOUT_PROMPT, kind): {None} for kind in ("all_sides", "some_sides")},
        **{(Task.REMOVAL, kind): {None} for kind in ("silhouettes", "boxes")},
    }


@pytest.mark.parametrize(
    ("known", "tasks"),
    [
        ({}, {Task.EXTEND_WITHOUT_PROMPT}),
        ({"words": (WORD,)}, {Task.EXTEND_WITHOUT_PROMPT, Task.FILL}),
        ({"caption": "x"}, {Task.EXTEND_WITHOUT_PROMPT, Task.EXTEND_WITH_PROMPT, Task.FILL}),
        ({"objects": (UNNAMED,)}, {Task.EXTEND_WITHOUT_PROMPT, Task.REMOVAL}),
        ({"objects": (CROWD,)}, {Task.EXTEND_WITHOUT_PROMPT, Task.REMOVAL}),
        ({"objects": (CAT,)}, {Task.EXTEND_WITHOUT_PROMPT, Task.REMOVAL, Task.FILL}),
    ],
)
def test_a_picture_gets_only_tasks_that_it_can_serve(known, tasks):
    found = drawn(Known("a", SIZE, **known))
    assert {one.task for one in found} == tasks
    assert {one.wanted for one in found} == set(KINDS)  # the others got another task


def test_weights_decide_and_none_is_left_without_a_task():
    found = drawn(Known("a", SIZE, **EVERYTHING), weights={Task.FILL: 3.0, Task.REMOVAL: 1.0})
    counts = [sum(one.task is task for one in found) for task in (Task.FILL, Task.REMOVAL)]
    assert sum(counts) == 60 and 35 <= counts[0] <= 55
    only_removal = {"weights": {Task.REMOVAL: 1.0, Task.FILL: 0.0}}
    assert set(drawn(Known("a", SIZE, caption="x"), **only_removal)) == {None}
    assert set(drawn(Known("a", SIZE), usable=lambda mask: False, count=5)) == {None}


def test_masks_of_a_picture_differ():
    settings = MaskSettings({Task.REMOVAL: 1.0}, KINDS, AREA, BORDER, 0.02)
    rngs = [generator(number, "draw") for number in range(9)]
    found = draw_triplets(rngs, Known("a", SIZE, objects=(CAT,)), settings, lambda mask: True)
    assert sorted(one.kind for one in found) == ["boxes", "silhouettes"]


def test_objects_that_are_too_small_or_too_large_are_not_used():
    tiny = GivenObject("fly", False, [[5, 5, 8, 5, 8, 8]])
    huge = GivenObject("sky", False, [[0, 0, 160, 0, 160, 119, 0, 119]])
    known = Known("a", SIZE, objects=(tiny, huge))
    assert {one.task for one in drawn(known)} == {Task.EXTEND_WITHOUT_PROMPT}


def test_masks_that_data_would_refuse_are_not_used():
    """A panorama that becomes a square: borders at both ends would be cropped away."""
    sizes, known = bucket_sizes(64, (1.0,)), Known("a", (100, 400))
    weights = {Task.EXTEND_WITHOUT_PROMPT: 1.0}
    everything = drawn(known, weights=weights)
    assert not all(is_usable(one.mask, sizes) for one in everything)
    left = drawn(known, weights=weights, usable=lambda mask: is_usable(mask, sizes))
    assert all(one is not None and is_usable(one.mask, sizes) for one in left)
