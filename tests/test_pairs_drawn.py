"""How often the judge sees pairs of each task while it learns."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from onereward_jax.data.pipeline import Mixing, mixed_rows
from onereward_jax.stages.reward import task_shares
from onereward_jax.tasks import TASKS, Task

COUNTS = {Task.FILL: 60, Task.EXTEND_WITH_PROMPT: 20, Task.REMOVAL: 4}
TASK_OF_PAIR = np.array([TASKS.index(task) for task, n in COUNTS.items() for _ in range(n)])
SIZE_OF_PAIR = np.full((len(TASK_OF_PAIR), 2), 64)


@pytest.mark.parametrize("tasks", ["as_found", "evenly"])
def test_tasks_come_with_their_share_and_all_pairs_of_a_task_alike(tasks):
    mixing = Mixing(task_shares(TASK_OF_PAIR, tasks))
    drawn = mixed_rows(TASK_OF_PAIR, SIZE_OF_PAIR, 4, 0, mixing)
    rows = collections.Counter(int(drawn[number]) for number in range(8400))
    assert set(rows) == set(range(len(TASK_OF_PAIR)))
    for task, count in COUNTS.items():
        of_task = [rows[row] for row in np.flatnonzero(TASK_OF_PAIR == TASKS.index(task)).tolist()]
        share = count / len(TASK_OF_PAIR) if tasks == "as_found" else 1 / len(COUNTS)
        assert sum(of_task) / 8400 == pytest.approx(share, abs=0.02)
        assert np.std(of_task) < 2 * np.sqrt(np.mean(of_task))


def test_any_other_word_is_refused():
    with pytest.raises(ValueError, match='reward.tasks must be "as_found" or "evenly", found'):
        task_shares(TASK_OF_PAIR, "on")
