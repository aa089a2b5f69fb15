"""The mini world: scenes are reproducible, true to their masks and prompts, and split cleanly."""

import dataclasses
import itertools

import numpy as np
import pytest

from onereward_jax.common.cielab import rgb_to_lab
from onereward_jax.mini.world import (
    NAMED,
    NAMED_COLOURS,
    PHOTOS,
    TEST_ONLY,
    TRAIN_ONLY,
    WORDS,
    describe_colour,
    make_scene,
    prompt_colour,
    prompts,
)
from onereward_jax.mini.world.sprites import anonymous_sprites, sprite_picture
from onereward_jax.tasks import TASKS, Task

SCENES = 30


@pytest.fixture(scope="module")
def scenes():
    """(split, scene) of every task and split."""
    return [
        (split, make_scene(np.random.default_rng([number, index]), task, split))
        for split in ("train", "test")
        for index, task in enumerate(TASKS)
        for number in range(SCENES)
    ]


def labels(sprites):
    return {sprite.label for sprite in sprites}


def test_the_generator_state_decides_the_scene():
    for task, size in itertools.product(TASKS, (64, 128)):
        first, again, other = (
            make_scene(np.random.default_rng(seed), task, "train", size) for seed in (3, 3, 4)
        )
        for field in dataclasses.fields(first):
            same = np.array_equal(getattr(first, field.name), getattr(again, field.name))
            assert same, (task, field.name)
        assert first.image.shape == (size, size, 3)
        assert not np.array_equal(first.target, other.target)


def test_an_edit_is_needed_under_the_mask_and_nowhere_else(scenes):
    for _, scene in scenes:
        assert scene.mask.any() and not scene.mask.all()
        assert set(np.unique(scene.mask)) == {0, 255}
        kept = scene.mask == 0
        np.testing.assert_array_equal(scene.image[kept], scene.target[kept])
        np.testing.assert_array_equal(scene.background[kept], scene.target[kept])
        assert (scene.image != scene.target).any()


def test_the_box_holds_what_is_drawn_or_removed(scenes):
    for _, scene in scenes:
        with_it = scene.image if scene.task is Task.REMOVAL else scene.target
        if scene.kind == "scene":
            changed = scene.mask > 0
        else:
            changed = (with_it != scene.background).any(-1)
        y0, x0, y1, x1 = scene.box
        inside = np.zeros_like(changed)
        inside[y0:y1, x0:x1] = True
        assert changed.any() and not (changed & ~inside).any()


def test_splits_share_no_photograph(scenes):
    seen = {
        split: {s.photo for where, s in scenes if where == split} for split in ("train", "test")
    }
    assert seen["test"] == {"china", "flower"} == {p.name for p in PHOTOS if p.split == "test"}
    assert seen["train"] <= {p.name for p in PHOTOS if p.split == "train"}
    assert len(seen["train"]) > 5


def test_removal_and_extend_test_on_sprites_never_seen_in_training(scenes):
    named, train, test = labels(NAMED), labels(TRAIN_ONLY), labels(TEST_ONLY)
    assert not (named & train or named & test or train & test)
    assert labels(anonymous_sprites("train")) == named | train
    assert labels(anonymous_sprites("test")) == test
    for split, scene in scenes:
        if scene.task is Task.REMOVAL:
            assert set(scene.label.split(" and ")) <= labels(anonymous_sprites(split))
        elif scene.kind == "object":
            assert scene.label in named


def test_prompts_say_what_is_to_be_drawn_and_all_are_listed(scenes):
    listed = prompts()
    assert len(listed) == len(set(listed))
    for _, scene in scenes:
        assert scene.prompt in listed
        if scene.task is Task.FILL:
            assert scene.label in scene.prompt
            assert (scene.kind == "word") == (scene.label in WORDS)


def test_an_extension_is_described_by_the_colour_nearest_to_its_true_mean(scenes):
    names, values = list(NAMED_COLOURS), np.array(list(NAMED_COLOURS.values()))
    described = [s for _, s in scenes if s.task is Task.EXTEND_WITH_PROMPT]
    distances = []
    for scene in described:
        mean = scene.target[scene.mask > 0].mean(0) / 255
        distance = np.linalg.norm(values - rgb_to_lab(mean), axis=-1)
        assert prompt_colour(scene.prompt) == names[distance.argmin()]
        distances.append(distance.min())
    # The names cover the colours there are; ten units of L*a*b* are a clear difference.
    assert np.median(distances) < 15
    assert len({scene.prompt for scene in described}) > 10
    assert all(prompt_colour(s.prompt) is None for _, s in scenes if s.kind != "scene")


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        ((20, 25, 75), "dark blue"),
        ((10, 10, 60), "dark blue"),
        ((90, 40, 120), "purple"),
        ((60, 110, 180), "blue"),
        ((235, 140, 40), "orange"),
        ((90, 150, 70), "green"),
        ((40, 50, 30), "dark green"),
        ((0, 0, 0), "black"),
        ((252, 252, 252), "white"),
        ((125, 125, 125), "grey"),
        ((180, 60, 60), "red"),
        ((240, 160, 185), "pink"),
        ((125, 90, 60), "brown"),
        ((230, 205, 80), "yellow"),
        ((50, 140, 140), "teal"),
    ],
)
def test_colours_have_the_names_people_give_them(rgb, words):
    assert describe_colour(np.array(rgb)) == words


def test_sprites_look_different():
    """No two named sprites are alike: asking for one by name has one right answer."""
    pictures = []
    for sprite in NAMED:
        rgba = sprite_picture(sprite.label, 32).astype(np.float32)
        canvas = np.full((32, 32, 3), 128, np.float32)
        height, width = rgba.shape[:2]
        alpha = rgba[..., 3:] / 255
        y, x = (32 - height) // 2, (32 - width) // 2
        canvas[y : y + height, x : x + width] += alpha * (rgba[..., :3] - 128)
        pictures.append(canvas)
    for (one, first), (two, second) in itertools.combinations(zip(NAMED, pictures), 2):
        assert np.abs(first - second).mean() > 8, (one.label, two.label)
