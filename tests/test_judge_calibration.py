"""Calibration and accuracy by agreement, on judges whose reliability is known."""

import numpy as np
import pytest

from onereward_jax.evaluation.judge_calibration import (
    accuracy_by_agreement,
    calibration,
    symmetrized,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(size=20000)
LABEL = (RNG.random(20000) < TRUTH).astype(float)


def test_a_judge_that_knows_the_probabilities_is_calibrated():
    found = calibration(TRUTH, LABEL)
    assert found.pairs == 20000 and found.error < 0.015
    assert [one.pairs for one in found.bins] == [2000] * 10
    confidences = [one.confidence for one in found.bins]
    assert confidences == sorted(confidences) and 0.5 < confidences[0] < confidences[-1] < 1
    for one in found.bins:
        assert one.accuracy == pytest.approx(one.confidence, abs=0.04)
        assert one.interval[0] < one.accuracy < one.interval[1]


def test_a_judge_that_is_too_sure_is_not():
    sure = np.where(TRUTH > 0.5, 0.99, 0.01)
    assert calibration(sure, LABEL).error == pytest.approx(0.99 - 0.75, abs=0.02)


def test_soft_labels_and_both_orders_count_as_they_are():
    """A label of 0.8 is met by a probability of 0.8, whichever picture comes first."""
    better = np.tile([0.8, 0.2], 30)
    assert calibration(better, better).error == pytest.approx(0.0, abs=1e-9)
    assert calibration(better, np.full(60, 0.5)).error == pytest.approx(0.3)
    first, second = np.array([0.9, 0.6]), np.array([0.3, 0.6])
    np.testing.assert_allclose(symmetrized(first, second), [0.8, 0.5])
    np.testing.assert_allclose(symmetrized(second, first), 1 - symmetrized(first, second))


def test_few_pairs_share_few_bins():
    assert [one.pairs for one in calibration(TRUTH[:45], LABEL[:45]).bins] == [23, 22]
    with pytest.raises(ValueError, match="no held-out pairs"):
        calibration(TRUTH[:0], LABEL[:0])


def test_accuracy_is_split_by_how_many_annotators_agree():
    label = np.array([1.0, 1.0, 0.75, 1.0, 0.5, 1.0])
    share = np.array([1.0, 2 / 3, 0.75, 0.6, 0.5, 1.0])
    votes = np.array([3, 3, 4, 5, 2, 1])
    found = accuracy_by_agreement(np.array([0.9, 0.9, 0.1, 0.1, 0.9, 0.9]), label, share, votes)
    assert [(one.annotators, one.pairs, one.accuracy) for one in found] == [
        ("all agree", 1, 1.0),
        ("two thirds or more agree", 2, 0.5),
        ("fewer agree", 1, 0.0),
    ]
    assert accuracy_by_agreement(TRUTH, LABEL, LABEL, np.ones(20000, int)) == []
