"""What people are asked and how their answers are read."""

import json

import pytest

from onereward_jax.annotation.questions import LISTED, Asked, read_answers, write_questions
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

TASKS = {"train/a": Task.FILL, "test/b": Task.REMOVAL}
COUNTS = {"train/a": 4, "test/b": 2}
ANSWER = {"triplet": "train/a", "dimension": "structure", "best": 2, "worst": 0}


def write(path, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts))
    return path


def test_answered_questions_come_back_as_preferences(tmp_path):
    path = tmp_path / "questions.jsonl"
    asked = [
        Asked(name, task, "a “red” apple", "a.png", "m.png", ("0.png", "1.png"))
        for name, task in TASKS.items()
    ]
    assert write_questions(path, asked) == len(DIMENSIONS[Task.FILL]) + 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["prompt"] == "a “red” apple" and lines[0]["candidates"] == ["0.png", "1.png"]

    with pytest.raises(ValueError, match="no line has an answer"):
        read_answers(path, TASKS, COUNTS)
    lines[0] |= {"best": 1, "worst": 0}
    lines[-1] |= {"best": None, "worst": None, "annotator": "ann"}
    first, last = read_answers(write(path, *lines, ""), TASKS, COUNTS)
    assert (first.triplet_id, first.task, first.dimension) == (
        "train/a",
        Task.FILL,
        Dimension(lines[0]["dimension"]),
    )
    assert (first.winner, first.loser, first.annotator) == (1, 0, "people")
    assert (last.winner, last.loser, last.annotator) == (None, None, "ann")


def test_bad_answers_are_named_all_at_once(tmp_path):
    bad = {
        "not JSON": "Expecting value",
        "[]": "not a JSON object",
        json.dumps(ANSWER | {"triplet": "train/z"}): "'train/z' has no candidates in this run",
        json.dumps(ANSWER | {"best": 4}): "best must be a number from 0 to 3 or null, found 4",
        json.dumps(ANSWER | {"best": True}): "a number from 0 to 3 or null, found True",
        json.dumps(ANSWER | {"worst": 2}): "candidate 2 cannot win against itself",
        json.dumps(ANSWER | {"worst": None}): "winner and loser must both be given",
        json.dumps(ANSWER | {"dimension": "removal_quality"}): "in which image fill is judged",
        json.dumps(ANSWER | {"annotator": 3}): "annotator must be a name, found 3",
        json.dumps({"triplet": "train/a", "dimension": "structure", "best": 1}): "worst is missing",
    }
    path = write(tmp_path / "answers.jsonl", ANSWER, *bad)
    with pytest.raises(ValueError) as error:
        read_answers(path, TASKS, COUNTS)
    message = str(error.value)
    assert f"{path}: {len(bad)} bad answers" in message
    for number, reason in enumerate(bad.values(), 2):
        (line,) = [line for line in message.splitlines() if line.startswith(f"  line {number}:")]
        assert reason in line


def test_a_long_list_of_bad_answers_is_cut(tmp_path):
    path = write(tmp_path / "answers.jsonl", *["{"] * (LISTED + 5))
    with pytest.raises(ValueError, match="and 5 more"):
        read_answers(path, TASKS, COUNTS)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_answers(tmp_path / "nowhere.jsonl", TASKS, COUNTS)
