"""How many candidates each task gets, and how often the judge sees its pairs while it learns."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from onereward_jax.data.pipeline import Mixing, mixed_rows
from onereward_jax.stages.candidates import choose_rows
from onereward_jax.stages.reward import task_shares
from onereward_jax.tasks import TASKS, Task

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
        assert np.std(of_task) < 2 * np.sqrt(np.mean(of_task))


def test_any_other_word_is_refused():
    with pytest.raises(ValueError, match='reward.tasks must be "as_found" or "evenly", found'):
        task_shares(TASK_OF_PAIR, "on")


class Many:
    """A hundred triplets of each task, whose pictures nobody asks for."""

    tasks = np.repeat(np.arange(len(TASKS), dtype=np.int32), 100)
    sizes = np.full((len(tasks), 2), 64, np.int32)

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, index):
        raise AssertionError

    def with_task(self, task):
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)


@pytest.mark.parametrize(
    ("tasks", "expected"), [("as_sampled", (40, 10, 10, 20)), ("evenly", (20, 20, 20, 20))]
)
def test_triplets_of_each_task_that_get_candidates(tasks, expected):
    rows = np.array(choose_rows(Many(), 80, tasks))
    for task, count in zip(Task, expected):
        found = rows[rows // 100 == TASKS.index(task)]
        np.testing.assert_array_equal(found, 100 * TASKS.index(task) + np.arange(count))


def test_any_other_word_is_refused_there_too():
    with pytest.raises(ValueError, match='must be "as_sampled" or "evenly", found'):
        choose_rows(Many(), 80, "as_found")
