"""How many candidates each task gets, and how often the judge sees its pairs while it learns."""

from __future__ import annotations

import collections
import functools

import numpy as np
import pytest

from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.stages.candidate_plans import choose_rows
from onereward_jax.stages.pair_source import task_shares
from onereward_jax.tasks import SAMPLING_PROBABILITIES, TASKS, Task

COUNTS = {Task.FILL: 60, Task.EXTEND_WITH_PROMPT: 20, Task.REMOVAL: 4}
TASK_OF_PAIR = np.array([TASKS.index(task) for task, n in COUNTS.items() for _ in range(n)])
SIZE_OF_PAIR = np.full((len(TASK_OF_PAIR), 2), 64)


@pytest.mark.parametrize("tasks", ["as_found", "evenly"])
def test_tasks_come_with_their_share_and_all_pairs_of_a_task_alike(tasks):
    mixing = Mixing(task_shares(TASK_OF_PAIR, tasks))
    drawn = mixed_rows(TASK_OF_PAIR, SIZE_OF_PAIR, 4, 0, mixing)
    rows = collections.Counter(int(drawn[number]) for number in range(2100))
    assert set(rows) == set(range(len(TASK_OF_PAIR)))
    for task, count in COUNTS.items():
        of_task = [rows[row] for row in np.flatnonzero(TASK_OF_PAIR == TASKS.index(task)).tolist()]
        share = count / len(TASK_OF_PAIR) if tasks == "as_found" else 1 / len(COUNTS)
        assert sum(of_task) / 2100 == pytest.approx(share, abs=0.03)
        assert max(of_task) - min(of_task) <= 1


def test_any_other_word_is_refused():
    with pytest.raises(ValueError, match='reward.tasks must be "as_found" or "evenly", found'):
        task_shares(TASK_OF_PAIR, "on")


class Many:
    """A hundred triplets of each task and some fills in front; nobody asks for their pictures."""

    def __init__(self, more=0):
        self.tasks = np.repeat(np.arange(len(TASKS), dtype=np.int32), 100)
        self.tasks = np.concatenate([np.full(more, TASKS.index(Task.FILL), np.int32), self.tasks])
        self.sizes = np.full((len(self.tasks), 2), 64, np.int32)

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, index):
        raise AssertionError

    def with_task(self, task):
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)


NAMES = [f"name {row}" for row in range(len(Many()))]


chosen_rows = functools.partial(choose_rows, probabilities=SAMPLING_PROBABILITIES)


@pytest.mark.parametrize(
    ("tasks", "expected"), [("as_sampled", (40, 10, 10, 20)), ("evenly", (20, 20, 20, 20))]
)
def test_triplets_of_each_task_that_get_candidates(tasks, expected):
    rows = np.array(chosen_rows(Many(), NAMES, 80, tasks, seed=0))
    for task, count in zip(Task, expected):
        found = rows[rows // 100 == TASKS.index(task)]
        assert len(found) == len(set(found)) == count
        # not the first ones: a folder often begins with one photographer
        assert np.median(found % 100) > count / 2


def test_tasks_without_triplets_leave_their_share_to_the_others():
    triplets = Many()
    triplets.tasks = np.where(triplets.tasks == 0, 3, triplets.tasks)
    for tasks, expected in (("evenly", (0, 20, 20, 20)), ("as_sampled", (0, 15, 15, 30))):
        rows = chosen_rows(triplets, NAMES, 60, tasks, seed=0)
        assert tuple(np.bincount(triplets.tasks[rows], minlength=4)) == expected
    few = triplets.tasks[chosen_rows(triplets, NAMES, 1, "evenly", seed=0)]
    assert sorted(few) == [1, 2, 3]


def test_one_more_triplet_takes_the_place_of_one_other_at_most():
    chosen = {NAMES[row] for row in chosen_rows(Many(), NAMES, 80, "evenly", seed=0)}
    for new in range(20):
        names = [f"new {new}", *NAMES]
        others = {names[row] for row in chosen_rows(Many(1), names, 80, "evenly", seed=0)}
        assert len(chosen - others) <= 1
    other_seed = {NAMES[row] for row in chosen_rows(Many(), NAMES, 80, "evenly", seed=1)}
    assert len(chosen - other_seed) > 20


def test_any_other_word_is_refused_there_too():
    with pytest.raises(ValueError, match='must be "as_sampled" or "evenly", found'):
        chosen_rows(Many(), NAMES, 80, "as_found", seed=0)
