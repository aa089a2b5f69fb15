"""Triplets on disk and the batches made of them."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from onereward_jax.data.mixing import Mixing
from onereward_jax.data.pipeline import eval_batches, train_batches
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.tfds_record import FIELDS
from onereward_jax.data.triplets import Triplets
from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.tasks import SAMPLING_PROBABILITIES, TASKS, Task

COUNTS = {
    "train": dict(zip(TASKS, (7, 3, 4, 5))),
    "test": dict.fromkeys(TASKS, 2),
}
SOURCE = MiniWorldSource(COUNTS, image_size=32, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triplets")
    write_triplets(folder, SOURCE)
    return folder


@pytest.fixture(scope="module")
def train(folder):
    return Triplets(folder, "train")


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_equal_batches(first, second):
    assert len(first) == len(second) > 0
    for one, two in zip(first, second):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_what_is_read_is_what_the_source_gave(folder):
    for split in ("train", "test"):
        stored = Triplets(folder, split)
        examples = list(SOURCE.examples(split))
        assert len(stored) == len(examples)
        for index, example in enumerate(examples):
            for name, found in stored[index].items():
                found = found[..., 0] if name == "mask" else found
                np.testing.assert_array_equal(found, getattr(example, name))
            assert stored[index].keys() == {*FIELDS}
            assert TASKS[stored.tasks[index]] is example.task
            assert stored.has_target[index] == example.has_target


def test_two_generations_are_equal_byte_for_byte(folder, tmp_path):
    write_triplets(tmp_path, SOURCE)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder, tmp_path)
    )
    assert first == second
    assert any("array_record" in path.name for path in first)


def test_asking_for_more_scenes_keeps_those_there_are():
    more = dataclasses.replace(SOURCE, counts={"test": dict.fromkeys(TASKS, 3)})
    known = {example.id: example for example in more.examples("test")}
    for example in SOURCE.examples("test"):
        np.testing.assert_array_equal(example.target, known[example.id].target)


def test_missing_data_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no TFDS data set .* features\.json"):
        Triplets(tmp_path, "train")


def test_batches_hold_pictures_masks_and_prompts_as_promised(train):
    (batch,) = take(train_batches(train, 6, seed=0), 1)
    assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
        "image": ("float32", (6, 32, 32, 3)),
        "target": ("float32", (6, 32, 32, 3)),
        "mask": ("float32", (6, 32, 32, 1)),
        "task": ("int32", (6,)),
        "index": ("int32", (6,)),
        "has_target": ("bool", (6,)),
        "prompt": ("object", (6,)),
    }
    for row, index in enumerate(batch["index"]):
        example = train[index]
        assert batch["prompt"][row] == example["prompt"]
        assert TASKS[batch["task"][row]].value == example["task"]
        assert batch["has_target"][row] == example["has_target"]
        pixels = np.round((batch["image"][row] + 1) * 127.5)
        np.testing.assert_array_equal(pixels, example["image"])
        np.testing.assert_array_equal(batch["mask"][row] * 255, example["mask"])


def test_tasks_are_drawn_with_the_probabilities_of_the_paper(train):
    batches = take(train_batches(train, 100, seed=0), 16)
    tasks = np.concatenate([batch["task"] for batch in batches])
    expected = len(tasks) * np.array([SAMPLING_PROBABILITIES[task] for task in TASKS])
    counts = np.bincount(tasks, minlength=len(TASKS))
    # 99.9 % quantile of chi-square with three degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 16.27
    # Drawn, not interleaved by a fixed pattern: the composition of batches varies as it should.
    fills = [(batch["task"] == TASKS.index(Task.FILL)).sum() for batch in batches]
    assert 2 < np.std(fills) < 10
    # And every example has its turn.
    assert set(np.concatenate([batch["index"] for batch in batches])) == set(range(len(train)))


def test_one_task_per_iteration_on_request(train):
    mixing = Mixing(task_per="iteration")
    batches = take(train_batches(train, 4, seed=0, mixing=mixing), 40)
    assert all(len(set(batch["task"])) == 1 for batch in batches)
    assert {int(batch["task"][0]) for batch in batches} == set(range(len(TASKS)))


def test_only_tasks_with_a_probability_are_drawn(train):
    batches = train_batches(train, 8, seed=0, mixing=Mixing({Task.REMOVAL: 1.0}))
    (batch,) = take(batches, 1)
    assert set(batch["task"]) == {TASKS.index(Task.REMOVAL)}


@pytest.mark.parametrize("task_per", ["sample", "iteration"])
def test_a_new_iterator_resumes_exactly(train, task_per):
    def iterator():
        return train_batches(train, 4, seed=5, mixing=Mixing(task_per=task_per))

    uninterrupted = take(iterator(), 6)
    first = iterator()
    take(first, 3)
    state = json.loads(json.dumps(first.get_state()))
    resumed = iterator()
    resumed.set_state(state)
    assert_equal_batches(take(resumed, 3), uninterrupted[3:])


def test_processes_share_the_batch_that_one_process_would_see(train):
    whole = take(train_batches(train, 4, seed=2), 3)
    for rows in ([0, 1], [2, 3], [1, 3], [2]):
        part = take(train_batches(train, 4, seed=2, rows=np.array(rows)), 3)
        for ours, batch in zip(part, whole):
            np.testing.assert_array_equal(ours["index"], batch["index"][rows])


def test_the_seed_decides_the_order(train):
    first, again, other = (take(train_batches(train, 8, seed=seed), 2) for seed in (1, 1, 2))
    assert_equal_batches(first, again)
    assert any((one["index"] != two["index"]).any() for one, two in zip(first, other))


def test_a_transform_makes_the_batch_of_the_step(train):
    def lengths(batch):
        return batch | {"length": np.array([len(prompt) for prompt in batch["prompt"]])}

    (batch,) = take(train_batches(train, 4, seed=0, transform=lengths), 1)
    np.testing.assert_array_equal(batch["length"], [len(prompt) for prompt in batch["prompt"]])


def test_evaluation_sees_every_example_once_in_full_batches(folder):
    test = Triplets(folder, "test")
    batches = list(eval_batches(test, 3))
    assert [len(batch["index"]) for batch in batches] == [3, 3, 3]
    valid = np.concatenate([batch["valid"] for batch in batches])
    indices = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(indices[valid], np.arange(len(test)))
    (removal,) = eval_batches(test, 2, indices=test.with_task(Task.REMOVAL))
    assert set(removal["task"]) == {TASKS.index(Task.REMOVAL)}


def test_mistakes_in_the_mixing_are_named(tmp_path):
    with pytest.raises(ValueError, match="sum to 1"):
        Mixing({Task.FILL: 0.7})
    counts = {"train": {Task.FILL: 1}, "test": {Task.FILL: 1}}
    write_triplets(tmp_path, MiniWorldSource(counts, image_size=32))
    with pytest.raises(ValueError, match="no example of extend_with_prompt"):
        train_batches(Triplets(tmp_path, "train"), 2, seed=0)
