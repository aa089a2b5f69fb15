"""Agreement statistics against published worked examples and their defining properties."""

import math

import numpy as np
import pytest

from onereward_jax.annotation import Preference, agreement_by_dimension
from onereward_jax.annotation.agreement import agreement_of, one_against_others
from onereward_jax.tasks import Dimension, Task

CELL = (Task.FILL, Dimension.STRUCTURE)


def test_alpha_of_the_published_example_with_missing_answers():
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C: nominal, 0.743
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .",
            "1 2 3 3 2 4 4 1 2 5 1 ."]  # fmt: skip
    items = {
        str(item): {str(rater): said for rater, said in enumerate(answers) if said != "."}
        for item, answers in enumerate(zip(*(row.split() for row in rows)))
    }
    found = agreement_of(items)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert (found.triplets, found.annotators) == (11, 4)


def test_agreement_is_undefined_where_nobody_shares_or_nobody_varies():
    assert math.isnan(agreement_of({"t": {"a": 1}}).rate)
    same = agreement_of({"t": {"a": 1, "b": 1}, "u": {"a": 1, "b": 1}})
    assert same.rate == 1.0 and math.isnan(same.alpha)


def _answers(task, dimension, table):
    for triplet, answers in enumerate(table):
        for annotator, answer in answers.items():
            yield Preference(f"t{triplet}", task, dimension, *answer, annotator, 0.0, 1.0)


def test_agreement_is_counted_per_task_and_dimension():
    same = [{"a": (0, 1), "b": (0, 1)}, {"a": (2, 1), "b": (2, 1)}, {"a": (None, None)}]
    apart = [{"a": (0, 1), "b": (1, 0), "c": (0, 1)}, {"a": (None, None), "b": (2, 0)}]
    found = agreement_by_dimension(
        [*_answers(*CELL, same), *_answers(Task.REMOVAL, Dimension.REMOVAL_QUALITY, apart)]
    )
    full = found[CELL]
    assert (full.triplets, full.annotators, full.rate, full.alpha) == (2, 2, 1.0, 1.0)
    part = found[Task.REMOVAL, Dimension.REMOVAL_QUALITY]
    assert (part.triplets, part.annotators) == (2, 3)
    assert part.rate == pytest.approx(1 / 4)  # three pairs of answers, then one
    assert part.alpha < 0.25
    assert len(found) == 2


def test_random_answers_agree_at_chance():
    draws = np.random.default_rng(0).integers(0, 4, (4000, 3))
    items = {str(item): dict(zip("abc", row)) for item, row in enumerate(draws.tolist())}
    assert abs(agreement_of(items).alpha) < 0.02


def test_one_annotator_is_measured_against_the_majority_of_the_others():
    """a and b agree, c errs: right, right, wrong; c's others agree, those of a and b do not."""
    table = [{"a": (0, 1), "b": (0, 1), "c": (0, 1)}, {"a": (0, 1), "b": (0, 1), "c": (1, 0)}]
    found = one_against_others(_answers(*CELL, table))[CELL]
    assert (found.pairs, found.accuracy) == (4, 0.75)
    undecided = [{"a": (None, None), "b": (2, 0), "c": (2, 0)}]
    found = one_against_others(_answers(*CELL, undecided))[CELL]
    assert (found.pairs, found.accuracy) == (1, 0.5)  # a; with a, b's and c's others disagree
    apart = [{"a": (2, 3), "b": (0, 1)}]  # no opinion on the other's pair
    assert one_against_others(_answers(*CELL, apart)) == {}


def test_annotators_who_err_at_a_known_rate_are_as_accurate_as_that():
    """Right with probability 0.8 about two candidates; the majority of twenty is right."""
    right = np.random.default_rng(0).random((400, 21)) < 0.8
    table = [{str(a): (0, 1) if ok else (1, 0) for a, ok in enumerate(row)} for row in right]
    found = one_against_others(_answers(*CELL, table))[CELL]
    assert found.accuracy == pytest.approx(0.8, abs=0.02)
