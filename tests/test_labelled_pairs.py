"""From answers of several annotators to labelled pairs: each, majority, soft; ∅ left or half."""

import collections
import dataclasses
import json

import pytest

from onereward_jax.annotation import Preference
from onereward_jax.annotation.labelled_pairs import (
    LabelledPair,
    PairRules,
    compared_pairs,
    read_pairs,
    write_pairs,
)
from onereward_jax.evaluation.intervals import wilson
from onereward_jax.stages.label_curve import part_of, point_of
from onereward_jax.tasks import Dimension, Task

CELL = (Task.FILL, Dimension.STRUCTURE)
NONE = (None, None)


def labels(answers, count=4, triplet="train/a", **rules):
    """(first, second) -> label, or a list of labels where a pair comes several times."""
    preferences = [
        Preference(triplet, *CELL, *answer, f"annotator {number}", 0.0, 0.0)
        for number, answer in enumerate(answers)
    ]
    found = list(compared_pairs(preferences, {triplet: range(count)}, PairRules(**rules)))
    assert len(found) == len({pair[3:5] for pair in found}) or rules["consensus"] == "each"
    assert all(pair.label >= 0.5 for pair in found)
    return found


def by_pair(found):
    return {(pair.first, pair.second): pair.label for pair in found}


def test_each_answer_is_a_pair_as_in_the_paper():
    found = labels([(0, 1), (1, 0), NONE, (0, 1)], consensus="each")
    assert [(p.first, p.second, p.label) for p in found] == [(0, 1, 1), (1, 0, 1), (0, 1, 1)]
    assert [(p.votes, p.share) for p in found] == [(4, 0.625), (4, 0.375), (4, 0.625)]
    implied = labels([(2, 0)], consensus="each", between=True)
    assert [(p.first, p.second) for p in implied] == [(2, 0), (2, 1), (1, 0), (2, 3), (3, 0)]


def test_the_majority_decides_and_a_draw_is_no_difference():
    rules = {"consensus": "majority"}
    assert by_pair(labels([(1, 0), (1, 0), (0, 1)], **rules)) == {(1, 0): 1.0}
    assert labels([(0, 1), (1, 0)], **rules) == []
    assert labels([(0, 1), NONE, NONE], **rules) == []
    half = rules | {"undecided": "half"}
    assert by_pair(labels([(0, 1), (1, 0)], **half)) == {(0, 1): 0.5}
    assert by_pair(labels([(0, 1), NONE, NONE], **half)) == {(0, 1): 0.5}


def test_best_and_worst_are_opinions_on_other_pairs_too():
    """(0, 2) says that 0 beats 1 as well; nothing about 1 and 3."""
    found = labels([(0, 1), (0, 2), (3, 1)], consensus="majority")
    assert by_pair(found) == {(0, 1): 1.0, (0, 2): 1.0, (3, 1): 1.0}
    assert {(p.first, p.second): p.votes for p in found} == {(0, 1): 3, (0, 2): 2, (3, 1): 2}


def test_soft_labels_are_shares_of_votes():
    answers = [(1, 0), (1, 0), (0, 1), NONE]
    (pair,) = labels(answers, consensus="soft")
    assert (pair.first, pair.second, pair.label) == (1, 0, pytest.approx(2 / 3))
    (pair,) = labels(answers, consensus="soft", undecided="half")
    assert (pair.label, pair.votes, pair.share) == (0.625, 4, 0.625)
    assert labels([NONE, NONE], consensus="soft") == []


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("consensus", ["each", "majority", "soft"])
def test_no_difference_gives_as_many_equal_pairs_as_a_decision(consensus, between):
    """Drawn from all pairs by the seed and the triplet, the same in every run."""
    rules = {"consensus": consensus, "between": between, "undecided": "half"}
    decided = labels([(0, 1)], **rules)
    seen = collections.Counter()
    for triplet in range(60):
        found = labels([NONE], triplet=f"train/{triplet}", **rules)
        assert found == labels([NONE], triplet=f"train/{triplet}", **rules)
        assert len(found) == len(decided) and {pair.label for pair in found} == {0.5}
        seen.update(frozenset(pair[3:5]) for pair in found)
    assert len(seen) == 6 and min(seen.values()) > 60 * len(decided) / 6 / 3
    assert labels([NONE], count=2, **rules)[0].label == 0.5


def test_parts_of_the_pairs_are_nested_and_split_by_source():
    fields = ("train", "s", *CELL, "", "candidates", "a.png", "b.png", (16, 16), 1.0, 1, 1.0)
    one = LabelledPair(*fields)
    pairs = [dataclasses.replace(one, source=f"s{number % 40}") for number in range(120)]
    whole = part_of(pairs, 1.0, seed=0)
    assert whole == pairs
    for share, sources in ((0.5, 20), (0.25, 10), (0.01, 1)):
        part = part_of(pairs, share, seed=0)
        kept = {pair.source for pair in part}
        assert len(kept) == sources and len(part) == 3 * sources
        assert all(pair in whole for pair in part)
        whole = part
    assert part_of(pairs, 0.25, seed=1) != part_of(pairs, 0.25, seed=0)


def test_pairs_are_read_as_they_are_written_and_a_bad_line_is_named(tmp_path):
    pair = LabelledPair(
        "train", "ä", *CELL, "an apple", "candidates", "a.png", "b.png", (16, 32), 0.75, 4, 0.75
    )
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [pair, dataclasses.replace(pair, label=0.5)])
    assert read_pairs(path) == [pair, dataclasses.replace(pair, label=0.5)]
    path.write_text(path.read_text().replace('"label": 0.5', '"label": 1.5'))
    with pytest.raises(ValueError, match=r"pairs.jsonl, line 2: pair of ä: label is 1.5, not in"):
        read_pairs(path)


def test_a_point_of_the_curve_has_its_interval_over_held_out_source_pictures(tmp_path):
    rows = [{"pairs": 30, "accuracy": 0.5}, {"pairs": 10, "accuracy": 1.0}]
    (tmp_path / "accuracy.json").write_text(json.dumps({"rows": rows}))
    fields = (*CELL, "", "candidates", "a.png", "b.png", (16, 16), 1.0, 1, 1.0)
    train, test = (
        [LabelledPair(split, f"s{number % 8}", *fields) for number in range(count)]
        for split, count in (("train", 16), ("test", 40))
    )
    found = point_of(tmp_path / "accuracy.json", train, test)
    assert (found.labels, found.sources, found.pairs) == (16, 8, 40)
    assert found.accuracy == pytest.approx(25 / 40)
    assert found.interval == wilson(found.accuracy, 8)
