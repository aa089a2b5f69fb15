"""Good/Same/Bad, accuracy of the judge, and image metrics against cases that can be worked out."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from onereward_jax.evaluation import (
    Comparison,
    Verdict,
    good_same_bad,
    judge_accuracy,
    judge_accuracy_table,
    mean_metrics,
    measure,
)
from onereward_jax.evaluation.image_metrics import MAX_PSNR
from onereward_jax.evaluation.intervals import FEW, wilson
from onereward_jax.mini.oracle import SceneTruth
from onereward_jax.mini.oracle.reading import letters_read
from onereward_jax.mini.world import make_scene
from onereward_jax.tasks import Dimension, Task

GOOD, SAME, BAD = Verdict


def _comparisons(task, *verdicts, per_triplet=1):
    return [Comparison(f"t{i // per_triplet}", task, v) for i, v in enumerate(verdicts)]


def test_gsb_counts_each_task_and_brackets_the_difference():
    found = good_same_bad(
        _comparisons(Task.FILL, *[GOOD] * 60, *[SAME] * 25, *[BAD] * 15)
        + _comparisons(Task.REMOVAL, SAME, SAME)
    )
    fill = found[Task.FILL]
    assert (fill.good, fill.same, fill.bad, fill.total) == (60, 25, 15, 100)
    assert fill.shares == (0.6, 0.25, 0.15)
    assert fill.difference == pytest.approx(0.45)
    # standard error of a mean of 100 values in {1, 0, -1} with this spread is 0.074
    assert fill.low == pytest.approx(0.45 - 1.96 * 0.074, abs=0.03)
    assert fill.high == pytest.approx(0.45 + 1.96 * 0.074, abs=0.03)
    assert Task.EXTEND_WITH_PROMPT not in found


@pytest.mark.parametrize("count", [1, 5, FEW - 1, 50])
def test_triplets_that_all_agree_do_not_settle_the_matter(count):
    one = good_same_bad(_comparisons(Task.FILL, *[GOOD] * count))[Task.FILL]
    assert one.few == (count < FEW) and one.difference == 1.0
    assert one.high == 1.0 and one.low < 0.95
    assert (one.low < 0) == (count < 5)
    same = good_same_bad(_comparisons(Task.FILL, *[SAME] * count))[Task.FILL]
    assert same.low < 0 < same.high
    # five raters of one triplet are still one triplet
    (raters,) = good_same_bad(_comparisons(Task.FILL, *[GOOD] * 30, per_triplet=30)).values()
    assert raters.few and raters.low < 0


def test_interval_of_an_accuracy():
    """Against the figures of Newcombe (1998), and one pair that happens to be right."""
    for share, count, low, high in ((81 / 263, 263, 0.2553, 0.3662), (1 / 29, 29, 0.0061, 0.1718)):
        assert wilson(share, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    one = judge_accuracy(np.array([0.9]), np.array([0.1]))
    assert one.few and one.accuracy == 1.0
    assert one.interval == (pytest.approx(0.2065, abs=1e-4), 1.0)


def test_gsb_resamples_triplets_because_their_verdicts_are_not_independent():
    verdicts = [verdict for verdict in [GOOD, BAD, GOOD, SAME] * 10 for _ in range(5)]
    alone = good_same_bad(_comparisons(Task.FILL, *verdicts))[Task.FILL]
    grouped = good_same_bad(_comparisons(Task.FILL, *verdicts, per_triplet=5))[Task.FILL]
    assert grouped.difference == alone.difference == pytest.approx(0.25)
    # five equal verdicts count as one: wider by sqrt(5)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(5**0.5, rel=0.2)


def test_judge_accuracy_of_hand_made_answers():
    #                     right  tie  wrong  right, but always "Yes"
    winner_first = np.array([0.9, 0.5, 0.3, 0.8])
    loser_first = np.array([0.2, 0.5, 0.6, 0.7])
    found = judge_accuracy(winner_first, loser_first)
    assert found.pairs == 4
    assert found.accuracy == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # asked once: right in winner_first 1, 4; in loser_first 1, 2 (0.5 is no Yes)
    assert found.single_order_accuracy == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert found.position_bias == pytest.approx(4.5 / 8 - 0.5)
    assert found.inconsistent == pytest.approx(2 / 4)


def test_a_judge_that_always_prefers_the_first_picture_is_found_out():
    found = judge_accuracy(np.full(8, 0.9), np.full(8, 0.9))
    assert found.accuracy == found.single_order_accuracy == 0.5
    assert found.position_bias == pytest.approx(0.4)
    assert found.inconsistent == 1.0


def test_judge_table_splits_by_task_and_dimension():
    tasks = [Task.FILL, Task.REMOVAL, Task.FILL]
    dimensions = [Dimension.STRUCTURE, Dimension.REMOVAL_QUALITY, Dimension.STRUCTURE]
    answers = np.array([0.9, 0.1, 0.2])
    table = judge_accuracy_table(tasks, dimensions, answers, 1 - answers)
    assert table[Task.FILL, Dimension.STRUCTURE].accuracy == 0.5
    assert table[Task.REMOVAL, Dimension.REMOVAL_QUALITY].accuracy == 0.0
    assert len(table) == 2
    # Three annotators of one picture tell no more than one does.
    many = judge_accuracy_table(
        tasks * 3, dimensions * 3, np.tile(answers, 3), np.tile(1 - answers, 3), ["a", "b", "c"] * 3
    )
    for cell, one in many.items():
        assert one.pairs == 3 * table[cell].pairs and one.interval == table[cell].interval
    with pytest.raises(ValueError, match="2 tasks and dimensions for 3 pairs"):
        judge_accuracy_table(tasks[:2], dimensions[:2], answers, answers)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="loser_first"):
        judge_accuracy(np.array([0.5]), np.array([np.nan]))
    with pytest.raises(ValueError, match="no held-out pairs"):
        judge_accuracy(np.zeros(0), np.zeros(0))


@pytest.fixture(scope="module")
def word():
    scene = make_scene(np.random.default_rng(3), Task.FILL, "test", kind="word")
    return SceneTruth.from_example(dataclasses.asdict(scene))


def _damaged(rgb):
    return (np.clip(rgb, 0, 1) * 2 - 1).astype(np.float32)


def _measured(triplet, rgb, **kwargs):
    source, truth = _damaged(triplet.image.rgb), _damaged(triplet.target.rgb)
    return measure(_damaged(rgb), source, triplet.mask, **{"truth": truth, **kwargs})


def test_the_truth_measures_perfect(word):
    letters = letters_read(_damaged(word.target.rgb), word, lambda pixels, box: word.label)
    found = _measured(word, word.target.rgb, word_accuracy=letters)
    assert found.psnr == MAX_PSNR
    assert found.ssim == pytest.approx(1.0)
    assert found.drift == pytest.approx(0.0, abs=1e-3)
    assert found.saturation_excess == pytest.approx(0.0, abs=1e-3)
    assert found.edge_density_excess == pytest.approx(0.0, abs=1e-3)
    assert found.word_accuracy == 1.0


def test_every_metric_sees_its_damage(word):
    rgb = word.target.rgb
    inside = rgb + 0.1 * word.mask[..., None]
    # nothing clips: the error inside the mask is exactly 0.1, outside there is none
    inside = np.where(inside > 1, rgb - 0.1, inside)
    found = _measured(word, inside)
    assert found.psnr == pytest.approx(20.0, abs=0.01)
    assert found.drift == pytest.approx(0.0, abs=1e-3)
    assert found.word_accuracy is None

    outside = _measured(word, rgb + 0.1 * ~word.mask[..., None])
    assert outside.psnr == MAX_PSNR
    assert outside.drift > 2.0

    grey = rgb.mean(-1, keepdims=True)
    assert _measured(word, grey + 1.6 * (rgb - grey)).saturation_excess > 1.0
    blurred = _measured(word, ndimage.gaussian_filter(rgb, (3, 3, 0)))
    assert blurred.edge_density_excess < -0.1
    assert blurred.ssim < 0.8


def test_without_a_truth_nothing_is_measured_against_one(word):
    rgb = word.target.rgb + 0.1 * ~word.mask[..., None]
    with_truth, without = _measured(word, rgb), _measured(word, rgb, truth=None)
    assert (without.drift, without.saturation, without.edge_density) == (
        with_truth.drift, with_truth.saturation, with_truth.edge_density
    )  # fmt: skip
    against = ("psnr", "ssim", "saturation_excess", "edge_density_excess")
    assert [getattr(without, name) for name in against] == [None] * 4
    mean = mean_metrics([with_truth, without, without])
    assert (mean.results, mean.truths) == (3, 1)
    assert [getattr(mean, name) for name in against] == [
        getattr(with_truth, name) for name in against
    ]
    assert mean_metrics([without]).psnr is None


def test_means_leave_out_what_was_not_measured(word):
    seen = _measured(word, word.target.rgb, word_accuracy=0.0)
    unseen = dataclasses.replace(seen, word_accuracy=None, psnr=20.0)
    mean = mean_metrics([seen, unseen])
    assert mean.word_accuracy == 0.0
    assert mean.psnr == (MAX_PSNR + 20.0) / 2
    assert mean_metrics([unseen]).word_accuracy is None
    with pytest.raises(ValueError, match="no results"):
        mean_metrics([])
