"""The judge on pairs of policy and base, by scores and by votes."""

import pytest

from onereward_jax.evaluation.gsb import Verdict
from onereward_jax.evaluation.policy_against_base import (
    RightOnPolicy,
    decided_by_scores,
    decided_by_verdicts,
    overall,
    right_on_policy,
)
from onereward_jax.tasks import Dimension, Task


def test_the_judge_is_measured_where_the_policy_has_moved():
    """Undecided pairs and votes are left out, a judge without a preference is half right."""
    structure, quality = Dimension.STRUCTURE, Dimension.REMOVAL_QUALITY
    tasks = {0: Task.FILL, 1: Task.FILL, 2: Task.FILL, 3: Task.REMOVAL}
    scores = {
        0: ({structure: 0.9}, {structure: 0.2}),
        1: ({structure: 0.3}, {structure: 0.5}),
        2: ({structure: 0.52}, {structure: 0.5}),
        3: ({quality: 0.1}, {quality: 0.6}),
    }
    preferences = {
        0: {structure: 0.8},
        1: {structure: 0.7},
        2: {structure: 0.9},
        3: {quality: 0.5},
    }
    decided = decided_by_scores(scores, 0.1)
    assert decided == {(0, structure): True, (1, structure): False, (3, quality): False}
    found = right_on_policy(tasks, preferences, decided)
    assert found[Task.FILL, structure] == RightOnPolicy(2, accuracy=0.5, prefers=1.0, better=0.5)
    assert found[Task.REMOVAL, quality] == RightOnPolicy(1, accuracy=0.5, prefers=0.5, better=0.0)
    assert overall(found) == pytest.approx(RightOnPolicy(3, 0.5, 2.5 / 3, 1 / 3))
    good, same, bad = Verdict
    votes = [(0, good), (0, bad), (1, bad), (1, same), (2, good), (2, good), (2, bad)]
    by_people = decided_by_verdicts((row, structure, verdict) for row, verdict in votes)
    assert by_people == {(1, structure): False, (2, structure): True}
