"""Every JSON-lines file that is read: texts may contain what ends lines elsewhere."""

import json

import pytest

from onereward_jax.annotation.answers import read_answers
from onereward_jax.annotation.comparisons import parse_line
from onereward_jax.annotation.labelled_pairs import read_pairs
from onereward_jax.annotation.questions import Question, with_questions
from onereward_jax.annotation.server.question_files import read_questions
from onereward_jax.annotation.store import PreferenceStore
from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.curation.words_and_captions import read_captions, read_words
from onereward_jax.exchange.record_files import open_records
from onereward_jax.tasks import Dimension, Task, dimension_named, task_named

ENDS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
"""Ends of lines for `str.splitlines`; control characters are escaped in JSON."""


def written(path, *rows, escaped=False):
    """As programs write them: with a byte order mark, CRLF, and a blank line."""
    lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    path.write_bytes(("\ufeff" + "\r\n".join([lines[0], "", *lines[1:]]) + "\r\n").encode())
    return path


@pytest.mark.parametrize("escaped", [False, True])
def test_only_a_line_feed_ends_a_line(escaped, tmp_path):
    path = written(tmp_path / "rows.jsonl", {"a": ENDS}, {"a": "b"}, escaped=escaped)
    found = [(number, json_object(line)) for number, line in json_lines(path)]
    assert found == [(1, {"a": ENDS}), (3, {"a": "b"})]
    records, count = open_records(path)
    assert count == 2 and next(records) == ("line 1", {"a": ENDS})


def test_our_own_questions_and_answers_are_read_whatever_they_contain(tmp_path):
    question = Question(ENDS, Task.FILL, ENDS, ("structure",), "i.png", "m.png", ("0", "1"), "abc")
    path = tmp_path / "questions.jsonl"
    path.write_bytes(with_questions(b"", [question]))
    assert read_questions(path) == [question]
    answer = {"digest": "abc", "dimension": "Structure", "best": 1.0, "worst": "0"}
    answers = written(tmp_path / "answers.jsonl", {**answer, "annotator": ENDS}, answer)
    (one, two) = read_answers(answers, [question]).given
    assert one.annotator == ENDS and one.place[1] == 1 and two.place[1] == 3
    assert one.said == two.said == (1, 0, None)


def test_captions_and_words_of_curation(tmp_path):
    row = {"picture": f"{ENDS}.jpg", "caption": ENDS, "text": ENDS, "box": [0, 0, 5, 5]}
    path = written(tmp_path / "notes.jsonl", row, row | {"picture": "other.jpg"})
    assert read_captions(path, [f"{ENDS}.jpg"]) and read_words(path, [f"{ENDS}.jpg"])


def test_fields_given_twice_and_lines_that_are_no_objects_are_refused_everywhere(tmp_path):
    for line in ('{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 2}}'):
        with pytest.raises(ValueError, match="the field 'a' is given twice"):
            json_object(line)
        with pytest.raises(ValueError, match="the field 'a' is given twice"):
            parse_line(line)
    (tmp_path / "x").write_text('{"record": "preference", "a": 1, "a": 1}\n')
    for read in (read_pairs, PreferenceStore(tmp_path / "p.sqlite").import_jsonl):
        with pytest.raises(ValueError, match="x, line 1: the field 'a' is given twice"):
            read(tmp_path / "x")
    for line, reason in {
        b"\xff\xfe{": "not UTF-8 .*looks like UTF-16",
        b"[1]": "not a JSON object",
        b"[" * 10**5: "not JSON",
        b"{'a': 1}": "not JSON",
    }.items():
        with pytest.raises(ValueError, match=reason):
            json_object(line)


def test_tasks_and_dimensions_are_named_in_any_usual_way():
    for name in ("extend_without_prompt", "Extend without prompt", "EXTEND-WITHOUT-PROMPT "):
        assert task_named(name) is Task.EXTEND_WITHOUT_PROMPT
    assert task_named(" Extend", "a lake") is Task.EXTEND_WITH_PROMPT
    for name in ("Remove", "REMOVAL", Task.REMOVAL.title):
        assert task_named(name) is Task.REMOVAL
    assert dimension_named("Text alignment") is Dimension.TEXT_ALIGNMENT
    with pytest.raises(ValueError, match="unknown dimension 'beauty'; there are structure,"):
        dimension_named("beauty")
