"""Near-duplicates and clusters: against brute force, and what the choice guarantees."""

import json

import numpy as np
import pytest
from test_pairs_drawn import Many

from onereward_jax.curation import near_duplicates
from onereward_jax.curation.clusters import Clusters, choose_of_clusters, find_clusters
from onereward_jax.curation.embeddings import Embedded
from onereward_jax.curation.near_duplicates import find_near_duplicates
from onereward_jax.curation.selection import REASONS, select, straddlers
from onereward_jax.stages.candidate_plans import choose_rows
from onereward_jax.tasks import TASKS, Task

THRESHOLD = 0.97


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def embeddings():
    """300 vectors, of which a third are near others."""
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(200, 16))
    near = apart[rng.integers(0, 200, 100)] + 0.2 * rng.normal(size=(100, 16))
    return unit(rng.permutation(np.concatenate([apart, near])))


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_near_duplicates_are_those_of_a_greedy_search(embeddings, block, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    order = np.random.default_rng(1).permutation(len(embeddings)).tolist()
    counts = []
    found = find_near_duplicates(embeddings, order, THRESHOLD, progress=counts.append)
    kept = []
    for place in order:
        cosines = embeddings[kept] @ embeddings[place] if kept else np.zeros(0)
        if (cosines >= THRESHOLD).any():
            near, cosine = found.of[place]
            assert near == kept[int(cosines.argmax())] and cosine == pytest.approx(cosines.max())
        else:
            kept.append(place)
    assert set(found.of) == set(order) - set(kept) and len(found.of) > 50
    assert sum(counts) == len(order)
    for place in found.of:  # all kept pictures near it are of its group
        for one in kept:
            if embeddings[one] @ embeddings[place] >= THRESHOLD:
                assert found.groups[one] == found.groups[place]
    assert not find_near_duplicates(embeddings, order, 2.0).of


def test_two_pictures_near_a_left_out_one_are_a_group():
    angles = np.array([0.0, 0.2, 0.4, 2.0])
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], 1))
    found = find_near_duplicates(vectors, [0, 2, 1, 3], np.cos(0.25))
    assert set(found.of) == {1}
    assert found.groups[0] == found.groups[1] == found.groups[2] != found.groups[3]


def test_clusters_are_reproducible_and_distances_are_to_their_centres(embeddings):
    found = find_clusters(embeddings, 5, seed=3)
    again = find_clusters(embeddings, 5, seed=3)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.distances, again.distances)
    assert set(found.labels.tolist()) <= set(range(5)) and (found.distances <= 2).all()
    assert (find_clusters(embeddings, 5, seed=4).labels != found.labels).any()


def test_the_nearest_and_some_of_the_farther_half_are_chosen():
    labels = np.array([0] * 10 + [1] * 2 + [2], np.int32)
    distances = np.array([*range(10), 1, 0, 5], np.float32)
    clusters, names = Clusters(labels, distances), [f"{n:02}" for n in range(13)]
    drawn = set()
    for seed in range(30):
        chosen = choose_of_clusters(clusters, names, near=3, far=2, seed=seed)
        assert {0, 1, 2, 10, 11, 12} <= set(chosen) and len(chosen) == 8
        far = set(chosen) - {0, 1, 2, 10, 11, 12}
        assert far <= {6, 7, 8, 9}  # of 3 to 9
        drawn |= far
        assert chosen == choose_of_clusters(clusters, names, near=3, far=2, seed=seed)
    assert drawn == {6, 7, 8, 9}
    assert len(choose_of_clusters(clusters, names, near=0, far=9, seed=0)) == 12


def test_every_left_out_picture_has_its_reason_and_the_larger_duplicate_stays():
    angles = [0.0, 0.05, 1.0, 2.0, 3.0, 2.5, 4.0]
    embeddings = unit(np.stack([np.cos(angles), np.sin(angles)], 1))
    sizes = np.array([[50, 50], [60, 60], [9, 9], [50, 50], [50, 50], [50, 50], [0, 0]], np.int32)
    contrasts = np.array([20, 20, 20, 1, 20, 20, 0], np.float32)
    digests = list("abcdeeg")
    errors = [""] * 6 + ["not a picture"]
    names = [f"{one}.jpg" for one in range(7)]
    embedded = Embedded(digests, embeddings, sizes, contrasts, errors)
    options = dict(clusters=2, near=1, far=0, duplicates=0.99, seed=0)
    found = select(names, embedded, refused_below=((32, 32),), **options)
    reasons = [one.why for one in found]
    assert reasons == ["near-duplicate", "", "small", "blank", "", "identical", "unreadable"]
    assert set(reasons) <= {"", *REASONS} and not straddlers(found)
    assert found[0].of == "1.jpg" and found[5].of == "4.jpg"
    lines = [one.fields() for one in found]
    assert lines[6] == {
        "picture": "6.jpg", "kept": False, "why": "unreadable", "detail": "not a picture",
    }  # fmt: skip
    assert json.loads(json.dumps(lines)) == lines
    assert select(names, embedded, refused_below=None, **options)[2].why != "small"


class Rows(Many):
    """Fills only."""

    def __init__(self, count):
        super().__init__()
        self.tasks = np.full(count, TASKS.index(Task.FILL), np.int32)


def test_candidates_of_every_cluster_before_a_second_of_any():
    groups = ["images/0000"] * 50 + ["images/0001"] * 5 + ["images/0002"] * 2
    rows, names = Rows(len(groups)), [str(number) for number in range(len(groups))]
    shares = dict.fromkeys(TASKS, 1 / len(TASKS))

    def chosen(count, groups):
        found = choose_rows(rows, names, count, "evenly", shares, 0, groups=groups)
        return [groups[row] for row in found] if groups else found

    assert sorted(set(chosen(3, groups))) == sorted(set(groups))
    six = chosen(6, groups)
    assert [six.count(one) for one in sorted(set(groups))] == [2, 2, 2]
    nine = chosen(9, groups)
    assert [nine.count(one) for one in sorted(set(groups))] == [4, 3, 2]
    assert sorted(chosen(57, groups)) == sorted(groups)
    assert chosen(6, ["same"] * 57) == ["same"] * 6
    one_group = choose_rows(rows, names, 6, "evenly", shares, 0, groups=["same"] * 57)
    assert one_group == chosen(6, None)  # by hash
