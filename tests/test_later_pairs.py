"""The share of a judge's batches that pairs of later rounds fill."""

import collections
import itertools

import pytest

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.stages.later_pairs import repeated
from onereward_jax.tasks import DIMENSIONS, Task


def pairs_of(task, folder, count):
    return [
        LabelledPair(
            split="train",
            source=f"{task.value}-{folder}-{number}",
            task=task,
            dimension=DIMENSIONS[task][0],
            prompt="",
            folder=folder,
            first="a.png",
            second="b.png",
            size=(64, 64),
            label=1.0,
            votes=1,
            share=1.0,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("share", (0.1, 0.5, 0.9))
def test_each_task_has_the_share_and_repeats_its_new_pairs_evenly(share):
    counts = {Task.FILL: (90, 10), Task.REMOVAL: (30, 30), Task.EXTEND_WITH_PROMPT: (20, 0)}
    pairs = [
        one
        for task, (old, new) in counts.items()
        for one in pairs_of(task, "candidates", old) + pairs_of(task, "candidates-2", new)
    ]
    found = repeated(pairs, [one.folder == "candidates-2" for one in pairs], share)
    times = collections.Counter(one.source for one in found)
    for task, (old, new) in counts.items():
        assert all(times[one.source] == 1 for one in pairs_of(task, "candidates", old))
        repeats = [times[one.source] for one in pairs_of(task, "candidates-2", new)]
        wanted = max(new, share / (1 - share) * old) if new else 0
        assert sum(repeats) == pytest.approx(wanted, abs=0.51)
        assert not repeats or max(repeats) - min(repeats) <= 1
    assert list(itertools.islice(found, len(pairs))) == pairs
