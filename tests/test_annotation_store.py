"""The preference store keeps what was acknowledged, once, and refuses contradictions."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import pytest

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.tasks import Dimension, Task


def _candidate(triplet_id: str, index: int) -> Candidate:
    return Candidate(
        *(triplet_id, index, f"{triplet_id}/{index}.png", 20, 1.0, 3.5, "nsfw", 1.0, 2**40 + 7),
        source_digest="5feceb66ffc86f38",
        digest="6b86b273ff34fce1",
    )


def _preference(triplet_id: str = "t0", annotator: str = "ann", **changes) -> Preference:
    answer = Preference(
        triplet_id, Task.FILL, Dimension.STRUCTURE, 1, 0, annotator, 1_790_000_000.25, 4.5
    )
    return dataclasses.replace(answer, **changes)


@pytest.fixture
def store(tmp_path):
    with PreferenceStore(tmp_path / "preferences.sqlite") as store:
        store.add_candidates(_candidate(t, i) for t in ("t0", "t1") for i in range(3))
        yield store


def test_inserting_the_same_twice_changes_nothing(store):
    answers = [_preference(), _preference(dimension=Dimension.AESTHETICS, winner=None, loser=None)]
    assert store.add_preferences(answers) == 2
    assert store.add_preferences([*answers, _preference(seconds=9.0, answered_at=0.0)]) == 0
    assert store.add_candidates([_candidate("t0", 2), _candidate("t2", 0)]) == 1
    assert sorted(store.preferences(), key=repr) == sorted(answers, key=repr)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            dict(winner=2),
            "^the answer of 'ann' about t0 in structure contradicts the stored record: "
            "winner 2 instead of 1$",
        ),
        (dict(triplet_id="t1", winner=7), "FOREIGN KEY"),
    ],
)
def test_a_refused_record_takes_its_whole_batch_with_it(store, bad, message):
    store.add_preferences([_preference()])
    with pytest.raises(ValueError, match=message):
        store.add_preferences([_preference(annotator="other"), _preference(**bad)])
    assert store.preferences() == [_preference()]


@pytest.mark.parametrize(
    "changes", [dict(loser=1), dict(winner=None), dict(dimension=Dimension.REMOVAL_QUALITY)]
)
def test_impossible_answers_cannot_be_made(changes):
    with pytest.raises(ValueError, match="preference of 'ann' for t0"):
        _preference(**changes)


def test_export_and_import_round_trip(store, tmp_path):
    store.add_preferences(
        [_preference(), _preference("t1", winner=None, loser=None, annotator="é")]
    )
    assert store.export_jsonl(tmp_path / "all.jsonl") == 8
    with PreferenceStore(tmp_path / "copy.sqlite") as copy:
        assert copy.import_jsonl(tmp_path / "all.jsonl") == 8
        assert copy.import_jsonl(tmp_path / "all.jsonl") == 0
        assert copy.candidates() == store.candidates()
        assert copy.preferences() == store.preferences()
        assert copy.preferences(Task.FILL, Dimension.AESTHETICS) == []
        assert copy.candidates("t1") == [_candidate("t1", i) for i in range(3)]


def test_import_names_the_bad_line_and_keeps_nothing(store, tmp_path):
    source = tmp_path / "all.jsonl"
    store.export_jsonl(source)
    source.write_text(source.read_text() + '{"record": "candidate", "triplet_id": "t9"}\n')
    with PreferenceStore(tmp_path / "copy.sqlite") as copy:
        with pytest.raises(ValueError, match="line 7"):
            copy.import_jsonl(source)
        assert copy.candidates() == []


def test_a_candidate_without_its_digest_is_refused(store):
    with pytest.raises(ValueError, match="candidate 7 of t0 is refused: .*digest"):
        store.add_candidates([dataclasses.replace(_candidate("t0", 7), digest="")])


def test_candidates_that_are_not_wanted_leave_unless_they_were_judged(store):
    everything = [(one.triplet_id, one.index) for one in store.candidates()]
    assert store.keep_candidates(everything) == 0
    assert store.keep_candidates([("t0", 0), ("t0", 1), ("t9", 0)]) == 4
    assert store.candidates() == [_candidate("t0", 0), _candidate("t0", 1)]
    store.add_preferences([_preference()])
    with pytest.raises(ValueError, match="a candidate with preferences stays"):
        store.keep_candidates([("t0", 0)])
    assert len(store.candidates()) == 2


def test_another_schema_version_is_refused(store):
    store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="schema version 99"):
        PreferenceStore(store.path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "store.sqlite").write_bytes(b"junk" * 500)
    with pytest.raises(ValueError, match=r"store\.sqlite is damaged"):
        PreferenceStore(tmp_path / "store.sqlite")


WRITER = """
import sys
from onereward_jax.annotation import Candidate, PreferenceStore
store = PreferenceStore(sys.argv[1])
for call in range(100_000):
    settings = (1, 1.0, 1.0, "", 1.0, 0, 0.0, "s", "d")
    pair = [Candidate(f"k{call:06d}", i, "p", *settings) for i in range(2)]
    store.add_candidates(pair)
    print(call, flush=True)
"""


def test_a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_call(store):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, store.path], stdout=subprocess.PIPE, text=True
    )
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)][-1]
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.wait()
    assert writer.returncode == -signal.SIGKILL
    with PreferenceStore(store.path) as reopened:
        written = [c.triplet_id for c in reopened.candidates() if c.triplet_id.startswith("k")]
        assert reopened.add_candidates([_candidate("after", 0)]) == 1
    calls = sorted(set(written))
    assert calls == [f"k{call:06d}" for call in range(len(calls))]
    assert len(calls) >= acknowledged + 1
    assert len(written) == 2 * len(calls)


def test_annotators_write_at_the_same_time(store):
    def annotate(name: str) -> None:
        with PreferenceStore(store.path) as own:
            for triplet_id in ("t0", "t1"):
                own.add_preferences([_preference(triplet_id, name)])

    threads = [threading.Thread(target=annotate, args=(f"a{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.preferences()) == 12
    assert os.path.exists(f"{store.path}-wal")
