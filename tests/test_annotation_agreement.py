"""Agreement statistics against published worked examples and their defining properties."""

import math

import numpy as np
import pytest

from onereward_jax.annotation import Preference, agreement_by_dimension
from onereward_jax.annotation.agreement import cohen_kappa, fleiss_kappa
from onereward_jax.tasks import Dimension, Task


def test_cohen_kappa_of_a_two_by_two_table():
    # 20 both yes, 5 yes/no, 10 no/yes, 15 both no: p_o = 0.7, p_e = 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_fleiss_kappa_of_his_worked_example():
    # ten subjects, five categories, fourteen raters: the table on Wikipedia's page, 0.210
    rows = """0 0 0 0 14|0 2 6 4 2|0 0 3 5 6|0 3 9 2 0|2 2 8 1 1|7 7 0 0 0|3 2 6 3 0
    |2 5 3 2 2|6 5 2 1 0|0 2 2 3 7"""
    counts = np.array([[int(n) for n in row.split()] for row in rows.split("|")])
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_kappa_is_undefined_when_nobody_varies():
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    assert math.isnan(fleiss_kappa(np.array([[1, 0]])))


def _answers(task, dimension, table):
    for triplet, answers in enumerate(table):
        for annotator, answer in answers.items():
            yield Preference(f"t{triplet}", task, dimension, *answer, annotator, 0.0, 1.0)


def test_agreement_is_counted_per_task_and_dimension():
    same = [{"a": (0, 1), "b": (0, 1)}, {"a": (2, 1), "b": (2, 1)}, {"a": (None, None)}]
    apart = [{"a": (0, 1), "b": (1, 0), "c": (0, 1)}, {"a": (None, None), "b": (2, 0)}]
    found = agreement_by_dimension(
        [
            *_answers(Task.FILL, Dimension.STRUCTURE, same),
            *_answers(Task.REMOVAL, Dimension.REMOVAL_QUALITY, apart),
        ]
    )
    full = found[Task.FILL, Dimension.STRUCTURE]
    assert (full.triplets, full.annotators, full.rate) == (2, 2, 1.0)
    assert full.cohen_kappa == full.fleiss_kappa == 1.0
    part = found[Task.REMOVAL, Dimension.REMOVAL_QUALITY]
    assert (part.triplets, part.annotators) == (2, 3)
    assert part.rate == pytest.approx(1 / 4)  # three pairs of answers, then one
    assert part.fleiss_kappa < 0.25
    assert len(found) == 2


def test_random_answers_agree_at_chance():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(4, [0.25] * 4, size=4000)
    assert abs(fleiss_kappa(counts)) < 0.02
    draws = rng.integers(0, 4, (2, 4000)).tolist()
    assert abs(cohen_kappa(*draws)) < 0.03
