"""Which row comes when: every row in its turn, tasks with p_k, the same from anywhere."""

import collections
import functools
import time

import numpy as np
import pytest

from onereward_jax.data.mixing import BLOCK_BATCHES, ENDLESS, Mixing, draws, mixed_rows, turns
from onereward_jax.data.pipeline import batches_of_rows
from onereward_jax.tasks import TASKS, Task

ODD = {
    Task.FILL: 0.57,
    Task.EXTEND_WITH_PROMPT: 0.011,
    Task.EXTEND_WITHOUT_PROMPT: 0.119,
    Task.REMOVAL: 0.3,
}
BATCH, BLOCK = 4, 256
DRAWN = 16_000
RNG = np.random.default_rng(0)
TASK_OF_ROW = RNG.choice(len(TASKS), 700, p=(0.7, 0.02, 0.08, 0.2)).astype(np.int32)
SIZES = np.array([(64, 64), (48, 80), (80, 48)])


def sizes_of_rows(count):
    return SIZES[RNG.choice(count, len(TASK_OF_ROW), p=(1.0,) if count == 1 else (0.7, 0.2, 0.1))]


@functools.cache
def mixed(count, task_per):
    sizes = sizes_of_rows(count)
    return sizes, mixed_rows(TASK_OF_ROW, sizes, BATCH, 3, Mixing(ODD, task_per))


@pytest.mark.parametrize("task_per", ["sample", "iteration"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_row_comes_once_before_any_comes_again(count, task_per):
    sizes, rows = mixed(count, task_per)
    drawn = collections.defaultdict(list)
    for start in range(0, DRAWN, BATCH):
        batch = [rows[start + place] for place in range(BATCH)]
        assert len({tuple(sizes[row]) for row in batch}) == 1
        assert task_per == "sample" or len(set(TASK_OF_ROW[batch])) == 1
        for row in batch:
            drawn[TASK_OF_ROW[row], tuple(sizes[row])].append(row)
    for (task, size), found in drawn.items():
        own = np.flatnonzero((TASK_OF_ROW == task) & (sizes == size).all(1)).tolist()
        epochs = [found[start : start + len(own)] for start in range(0, len(found), len(own))]
        assert all(sorted(epoch) == own for epoch in epochs[:-1])
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert len(own) < 9 or len(epochs) < 2 or epochs[0] != epochs[1]  # in another order
    for task, probability in ODD.items():
        share = sum(len(found) for key, found in drawn.items() if TASKS[key[0]] is task) / DRAWN
        assert share == pytest.approx(probability, abs=0.004)


@pytest.mark.parametrize("task_per", ["sample", "iteration"])
@pytest.mark.parametrize("count", [1, 3])
def test_any_process_finds_its_part_from_anywhere(count, task_per):
    sizes, rows = mixed(count, task_per)
    whole = [rows[number] for number in range(3 * BATCH * BLOCK_BATCHES)]
    for number in np.random.default_rng(1).permutation(len(whole))[:12].tolist():
        again = mixed_rows(TASK_OF_ROW, sizes, BATCH, 3, Mixing(ODD, task_per))
        assert again[number] == whole[number]
    for processes in (1, 2, 4):
        parts = [
            batches_of_rows(rows, BATCH, np.arange(BATCH).reshape(processes, -1)[process])
            for process in range(processes)
        ]
        batches = [np.concatenate([part[number] for part in parts]) for number in range(100)]
        np.testing.assert_array_equal(np.concatenate(batches), whole[: 100 * BATCH])


def test_a_draw_knows_how_often_its_option_came_before_however_late_it_is():
    draw = draws((0.5, 0.3, 0.199, 0.001), BLOCK, seed=0, name="late")
    started, first = time.perf_counter(), ENDLESS - 12 * BLOCK
    found = [draw(number) for number in range(first, ENDLESS)]
    assert time.perf_counter() - started < 1.0
    for option in range(4):
        counts = [earlier for drawn, earlier in found if drawn == option]
        np.testing.assert_array_equal(counts, counts[0] + np.arange(len(counts)))
    assert sum(next(n for drawn, n in found if drawn == option) for option in range(4)) == first


def test_turns_are_shared_out_exactly():
    shares = (57, 1, 12, 30)
    counts = np.array([turns(shares, count) for count in range(3000)])
    np.testing.assert_array_equal(counts.sum(1), np.arange(3000))
    assert (np.diff(counts, axis=0) >= 0).all()
    exact = np.arange(3000)[:, None] * np.array(shares) / 100
    assert np.abs(counts - exact).max() < len(shares)


def test_one_draw_tells_nothing_of_the_next():
    draw = draws(list(ODD.values()), BLOCK, seed=0, name="task")
    options = np.array([draw(number)[0] for number in range(40_000)])
    expected = sum(probability**2 for probability in ODD.values())
    for distance in (1, 2, 7, BLOCK):
        same = np.mean(options[distance:] == options[:-distance])
        assert same == pytest.approx(expected, abs=0.015)
    other = draws(list(ODD.values()), BLOCK, seed=1, name="task")
    assert np.mean([other(n)[0] for n in range(4000)] == options[:4000]) < expected + 0.05
