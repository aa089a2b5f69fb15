"""Broken rows: all named with place, field and reason; nothing is written, nothing escapes."""

import copy
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exchange_runs import write_run
from PIL import Image
from public_sets import (
    EDIT_REWARD_FLAGS,
    TABLE_FLAGS,
    refused,
    run_import,
    write_edit_reward,
    write_table,
)

import onereward_jax
from onereward_jax import preferences
from onereward_jax.annotation.comparisons import from_dict
from onereward_jax.annotation.preferences_folder import read_comparisons
from onereward_jax.data.example import RowError

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("made")
    preferences.main(
        ["export", f"--workdir={write_run(top / 'run', photographs=1)}", f"--to={top / 'prefs'}"]
    )
    return top / "prefs"


@pytest.fixture
def damaged(folder, tmp_path):
    """Copies the folder with other lines."""

    def write(lines):
        copied = tmp_path / "damaged"
        copied.mkdir(exist_ok=True)
        if not (copied / "pictures").exists():
            (copied / "pictures").symlink_to(folder / "pictures")
        (copied / "about.json").write_bytes((folder / "about.json").read_bytes())
        content = b"\n".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
        )
        (copied / "preferences.jsonl").write_bytes(content)
        return copied

    return write


def lines_of(folder):
    return [json.loads(line) for line in (folder / "preferences.jsonl").open()]


def test_every_bad_line_is_listed_with_field_and_reason(folder, damaged, tmp_path, capsys):
    good = lines_of(folder)
    bad = [copy.deepcopy(good[place % len(good)]) for place in range(12)]
    bad[0]["answers"][0]["best"] = 3
    bad[1]["answers"][0]["dimension"] = "overall"
    bad[2]["candidates"][1]["path"] = "../../etc/passwd"
    bad[3]["candidates"][0]["path"] = "/etc/passwd"
    bad[4]["image"]["path"] = "pictures/none.png"
    bad[5]["task"] = "paint"
    bad[6]["prompt"] = None
    del bad[7]["answers"]
    bad[8]["candidates"][0]["digest"] = "0" * 32
    bad[9]["answers"][0]["worst"] = None
    bad[10]["answers"][0] |= {"best": 0, "worst": 1, "probability": 0.4}
    bad[11]["colour"] = "red"
    source = damaged([*good, *bad, b"{", b"\xff\xfe", b"[1]"])
    message = refused(capsys, source, tmp_path / "to")
    first, *listed = message.split("\n  ")
    assert first == f"{source}: 15 bad rows"
    start = len(good) + 1
    expected = (
        "answers[0]: best must be from 0 to 2 or null, found 3",
        "answers[0].dimension 'overall' is unknown; there are structure, consistency",
        "candidates[1].path '../../etc/passwd' leads out of the folder",
        "candidates[0].path '/etc/passwd' leads out of the folder",
        "image: there is no file pictures/none.png",
        "task 'paint' is unknown; there are fill",
        "prompt must be a string, found None",
        "answers is missing",
        "has the digest",
        "answers[0]: best and worst must both be given, or both be null",
        "answers[0]: probability must be in (0.5, 1], found 0.4",
        "unknown field 'colour'; there are id, task",
        "not JSON: ",
        "not UTF-8",
        "not a JSON object",
    )
    for number, (line, reason) in enumerate(zip(listed, expected, strict=True), start):
        assert line.startswith(f"line {number}: ") and reason in line
    run_import(source, tmp_path / "some", "--bad_rows=skip")
    assert "left out: " in capsys.readouterr().out
    assert read_comparisons(tmp_path / "some") == read_comparisons(folder)


def test_long_listings_are_capped(folder, damaged, tmp_path, capsys):
    source = damaged([b"{"] * 3000 + lines_of(folder))
    listed = refused(capsys, source, tmp_path / "to").split("\n  ")
    assert len(listed) == 22 and listed[0].endswith("3000 bad rows")
    assert listed[-1] == "and 2980 more"


def broken(value, rng):
    """A value with one random part broken, and whether it is the same object again."""
    value = copy.deepcopy(value)
    node, path = value, []
    while isinstance(node, dict | list) and node and (not path or rng.random() < 0.7):
        key = rng.choice(list(node)) if isinstance(node, dict) else int(rng.integers(len(node)))
        path.append(key if not isinstance(key, np.str_) else str(key))
        node = node[path[-1]]
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    junk = [None, -1, 1e300, True, "", "x", "\ud800", "../x", [], {}, [None], {"a": 1}, 3.5, "\0"]
    if isinstance(parent, dict) and rng.random() < 0.3:
        del parent[path[-1]]
    else:
        parent[path[-1]] = junk[rng.integers(len(junk))]
    return value


def test_random_damage_is_a_row_error_or_still_a_comparison(folder):
    """2,000 damaged lines: never another exception; what is accepted is stable."""
    rng, good = np.random.default_rng(0), lines_of(folder)
    errors = 0
    for number in range(2000):
        line = broken(good[number % len(good)], rng)
        try:
            kept = from_dict(line)
        except RowError as error:
            errors += 1
            assert str(error) and "\n" not in str(error)
        else:
            assert from_dict(json.loads(kept.to_line())) == kept
    assert errors > 1000


def test_random_bytes_are_listed_not_raised(folder, damaged, tmp_path, capsys):
    rng, lines = np.random.default_rng(1), (folder / "preferences.jsonl").read_bytes().split(b"\n")
    cut = []
    for number in range(60):
        line = bytearray(lines[number % (len(lines) - 1)])
        for _ in range(rng.integers(1, 4)):
            line[rng.integers(len(line))] = rng.integers(256)
        cut.append(bytes(line).replace(b"\n", b" "))
    message = refused(capsys, damaged([*cut, b"{"]), tmp_path / "to")
    assert "bad row" in message.split("\n")[0]


def test_contradictions_and_repeats(folder, damaged, tmp_path, capsys):
    good = lines_of(folder)
    other = copy.deepcopy(good[0])
    answer = other["answers"][0]
    answer["best"], answer["worst"] = (0, 1) if answer["best"] != 0 else (1, 2)
    alien = copy.deepcopy(good[1]) | {"prompt": "something else"}
    message = refused(capsys, damaged([*good, other, alien]), tmp_path / "to")
    assert f"line {len(good) + 1}: " in message
    assert f"{answer['annotator']!r} gave a different answer about" in message
    assert "of the same candidates in line 1" in message
    assert f"line {len(good) + 2}: id {alien['id']!r} is that of another comparison" in message
    run_import(damaged([*good, good[0]]), tmp_path / "twice")
    said = capsys.readouterr().out
    assert f"{len(good[0]['answers'])} answers are there more than once: kept once" in said
    assert read_comparisons(tmp_path / "twice") == read_comparisons(folder)


def test_a_source_picture_in_both_splits_is_refused_in_one_sentence(
    folder, damaged, tmp_path, capsys
):
    good = lines_of(folder)
    first = next(line for line in good if line["split"] == "train")
    changed = [line | {"split": "test"} if line is first else line for line in good]
    message = refused(capsys, damaged(changed), tmp_path / "to")
    assert "\n" not in message and "must be in one split" in message and first["source"] in message
    # Without stated splits they are drawn, by source picture.
    drawn = damaged([line | {"split": None} for line in good])
    run_import(drawn, tmp_path / "drawn")
    splits = {}
    for one in read_comparisons(tmp_path / "drawn"):
        splits.setdefault(one.source, set()).add(one.split)
    assert len(splits) == 2 and all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "test"}


def test_the_draw_does_not_depend_on_order_or_on_other_rows(tmp_path):
    rows = write_edit_reward(tmp_path, sources=40)
    found = []
    for name, kept in (("all", rows), ("reversed", rows[::-1]), ("some", rows[5:30])):
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
        to = tmp_path / name
        flags = (*EDIT_REWARD_FLAGS, f"--pictures={tmp_path / 'images'}")
        run_import(tmp_path / f"{name}.json", to, *flags)
        found.append({one.id: one.split for one in read_comparisons(to)})
    assert found[0] == found[1] and found[2].items() <= found[0].items()
    assert set(found[0].values()) == {"train", "test"}


def test_the_new_folder_must_be_new(folder, tmp_path, capsys):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.txt").write_text("kept")
    message = refused(capsys, folder, tmp_path / "to")
    assert message == f"--to: {tmp_path / 'to'} exists already: name a new folder"
    assert (tmp_path / "to" / "mine.txt").read_text() == "kept"
    with pytest.raises(SystemExit):
        preferences.main(["export", f"--from={folder}", f"--to={tmp_path / 'to'}"])
    assert "exists already" in capsys.readouterr().err


def test_an_export_of_a_changed_picture_is_refused(folder, tmp_path, capsys):
    copied = tmp_path / "copied"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        to = copied / path.relative_to(folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    one = read_comparisons(copied)[2]
    Image.new("RGB", (32, 32)).save(copied / one.candidates[1].picture.path)
    for format in ("parquet", "huggingface", "trl", "ms_swift", "label_studio"):
        to = tmp_path / format
        with pytest.raises(SystemExit) as stopped:
            preferences.main(["export", f"--from={copied}", f"--to={to}", f"--format={format}"])
        assert stopped.value.code == 2 and not to.exists()
        assert "line 3: candidates[1] " in capsys.readouterr().err


def test_damaged_parquet_rows_are_named(folder, tmp_path, capsys):
    preferences.main(["export", f"--from={folder}", f"--to={tmp_path / 'out'}", "--format=parquet"])
    path = tmp_path / "out" / "preferences-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    schema = pq.read_schema(path)
    rows[0]["image"]["bytes"] = b"GIF89a"
    rows[1]["settings"][0] = "{"
    rows[2]["candidates"] = rows[2]["candidates"][:1]
    rows[3]["answers"][0]["best"] = 9
    rows[4]["task"] = None
    rows[5]["candidates"][0]["bytes"] = rows[5]["candidates"][1]["bytes"]
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    message = refused(capsys, tmp_path / "out", tmp_path / "to", "--format=parquet")
    head, *lines = message.split("\n  ")
    assert head.endswith("6 bad rows")
    reasons = (
        "image pictures/",
        "settings[0] is not JSON",
        "candidates must be two or more pictures",
        "best must be from 0 to 2 or null, found 9",
        "task None is unknown",
        "the file has changed",
    )
    for number, (line, reason) in enumerate(zip(lines, reasons, strict=True), 1):
        assert line.startswith(f"preferences-00000.parquet, row {number}: ") and reason in line
    content = bytearray(path.read_bytes())
    content[200:4000] = os.urandom(3800)
    path.write_bytes(content)
    assert "damaged" in refused(capsys, path, tmp_path / "to", "--format=parquet")
    path.write_bytes(bytes(content[:-10]))
    assert "is not a Parquet file" in refused(capsys, path, tmp_path / "to", "--format=parquet")


def test_a_killed_import_leaves_nothing_that_looks_finished(tmp_path):
    """kill -9 while pictures are written; the next import succeeds and clears the rest."""
    write_table(tmp_path, rows=400)
    command = [sys.executable, "-m", "onereward_jax.preferences", "import"]
    command += [f"--from={tmp_path / 'pairs.csv'}", f"--to={tmp_path / 'to'}", *TABLE_FLAGS]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".to.draft-*/pictures/*/*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "to").exists() and list(tmp_path.glob(".to.draft-*"))
    run_import(tmp_path / "pairs.csv", tmp_path / "to", *TABLE_FLAGS)
    assert len(read_comparisons(tmp_path / "to")) == 400
    assert not list(tmp_path.glob(".to*"))
