"""What people are asked and how their answers are read."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from onereward_jax.annotation.answers import read_answers
from onereward_jax.annotation.guidelines import read_guidelines
from onereward_jax.annotation.picture_digests import pixel_digest, question_digest
from onereward_jax.annotation.question_page import write_question_page
from onereward_jax.annotation.questions import USABLE, Question, add_questions
from onereward_jax.common.listing import LISTED
from onereward_jax.tasks import DIMENSIONS, Dimension, Task


def question(triplet, task, count, digest):
    return Question(
        triplet=triplet,
        task=task,
        prompt="a “red” apple",
        dimensions=tuple(one.value for one in DIMENSIONS[task]),
        image="a.png",
        mask="m.png",
        candidates=tuple(f"{number}.png" for number in range(count)),
        digest=digest,
    )


FILL, REMOVAL = "f" * 16, "0" * 16
ASKED = [question("train/a", Task.FILL, 4, FILL), question("test/b", Task.REMOVAL, 2, REMOVAL)]
ANSWER = {"triplet": "train/a", "dimension": "structure", "digest": FILL, "best": 2, "worst": 0}


def write(path, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_answered_questions_come_back(tmp_path):
    path = tmp_path / "questions.jsonl"
    assert add_questions(path, ASKED) == len(DIMENSIONS[Task.FILL]) + 1
    lines = read_lines(path)
    assert lines[0]["prompt"] == "a “red” apple" and len(lines[0]["candidates"]) == 4
    assert read_answers(path, ASKED).given == ()

    lines[0] |= {"best": 1, "worst": 0}
    lines[-1] |= {"best": None, "worst": None, "annotator": " ann "}
    first, last = read_answers(write(path, *lines, ""), ASKED).given
    assert (first.triplet, first.dimension) == ("train/a", lines[0]["dimension"])
    assert (first.best, first.worst, first.annotator) == (1, 0, "people")
    assert (last.best, last.worst, last.annotator) == (None, None, "ann")


def test_an_answer_is_read_as_tools_write_it(tmp_path):
    """Numbers of spreadsheets, places left empty, line separators in a text, a byte order mark."""
    least = {"dimension": "structure", "digest": FILL}
    for number, (best, worst) in enumerate([(2, 0), (2.0, 0.0), ("2", "0"), ("2.0", " 0")]):
        path = write(tmp_path / f"{number}.jsonl", least | {"best": best, "worst": worst})
        (answer,) = read_answers(path, ASKED).given
        assert (answer.best, answer.worst) == (2, 0) and type(answer.best) is int
    for empty in ({}, {"best": "", "worst": " "}, {"best": "", "annotator": "ann"}):
        path = write(tmp_path / "empty.jsonl", least | empty, '{"best": NaN, "worst": NaN}')
        assert read_answers(path, ASKED).given == ()
    line = json.dumps(ANSWER | {"remark": "one\u2028two\x85"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n".encode())
    assert len(read_answers(path, ASKED).given) == 1


def test_bad_answers_are_named_all_at_once(tmp_path):
    both = "give both, or null twice where the candidates do not differ"
    bad = {
        "not JSON": "Expecting value",
        "[]": "not a JSON object",
        json.dumps(ANSWER | {"digest": ""}): "digest is missing: copy it from the question",
        json.dumps(ANSWER | {"digest": REMOVAL}): "is 'train/a', but digest belongs to 'test/b'",
        json.dumps(ANSWER | {"best": 4}): "best must be a number from 0 to 3 or null, found 4",
        json.dumps(ANSWER | {"best": 1.5}): "best must be a number from 0 to 3 or null, found 1.5",
        json.dumps(ANSWER | {"best": "x"}): "a number from 0 to 3 or null, found 'x'",
        json.dumps(ANSWER | {"best": True}): "a number from 0 to 3 or null, found True",
        json.dumps(ANSWER | {"worst": 2}): f"best and worst are both candidate 2: {both}",
        json.dumps(ANSWER | {"worst": None}): f"best is given without worst: {both}",
        json.dumps(ANSWER | {"best": ""}): f"worst is given without best: {both}",
        json.dumps(ANSWER | {"dimension": "removal_quality"}): "is not a dimension of image fill",
        json.dumps(ANSWER | {"annotator": 3}): "annotator must be a name, found 3",
        json.dumps({"digest": FILL, "best": 1, "worst": 0}): "dimension is missing",
        json.dumps({"digest": FILL, "dimension": "structure", "best": 1}): "best is given without",
    }
    path = write(tmp_path / "answers.jsonl", ANSWER | {"annotator": "ann"}, *bad)
    with pytest.raises(ValueError) as error:
        read_answers(path, ASKED)
    message = str(error.value)
    assert f"{path}: {len(bad)} bad answers" in message
    for number, reason in enumerate(bad.values(), 2):
        (line,) = [line for line in message.splitlines() if line.startswith(f"  line {number}:")]
        assert reason in line


def test_one_annotator_answers_a_question_once_or_twice_alike(tmp_path):
    twice = (ANSWER, ANSWER | {"annotator": "ann", "best": 1}, ANSWER | {"best": 2.0})
    assert len(read_answers(write(tmp_path / "a.jsonl", *twice), ASKED).given) == 2
    other = ANSWER | {"best": None, "worst": None}
    with pytest.raises(ValueError) as error:
        read_answers(write(tmp_path / "a.jsonl", *twice, other), ASKED)
    assert str(error.value).endswith(
        "a.jsonl: 1 bad answer\n  line 4: 'people' gave a different answer in line 1: "
        "best 2 and worst 0 there, best null and worst null here"
    )
    # of a folder, each file is an annotator's unless its lines say otherwise
    write(tmp_path / "ben.jsonl", ANSWER, other | {"annotator": "ann"})
    write(tmp_path / "a.jsonl", *twice)
    with pytest.raises(ValueError, match=r"  ben.jsonl, line 2: 'ann' .* in a.jsonl, line 2: best"):
        read_answers(tmp_path, ASKED)
    write(tmp_path / "ben.jsonl", ANSWER)
    assert [one.annotator for one in read_answers(tmp_path, ASKED).given] == ["a", "ann", "ben"]


def test_a_single_result_is_usable_or_not(tmp_path):
    single = dataclasses.replace(
        question("test/c", Task.FILL, 1, "c" * 16), dimensions=(USABLE,), candidates=("0.png",)
    )
    least = {"dimension": USABLE, "digest": single.digest}
    for value, expected in (
        (True, True),
        (False, False),
        ("no", False),
        (" YES ", True),
        (1, True),
        (0.0, False),
        ("TRUE", True),
    ):
        (answer,) = read_answers(
            write(tmp_path / "a.jsonl", least | {"usable": value}), [single]
        ).given
        assert answer.said == (None, None, expected) and answer.digest == single.digest
    for value in (None, "", float("nan")):
        path = write(tmp_path / "a.jsonl", least | {"usable": value})
        assert read_answers(path, [single]).given == ()
    for bad, told in (
        (least | {"usable": "perhaps"}, "usable must be true or false, found 'perhaps'"),
        (least | {"usable": 2}, "usable must be true or false, found 2"),
        (least | {"best": None, "worst": None}, "usable must be true or false, found None"),
        (ANSWER | {"usable": True}, "usable is given for structure: give best and worst"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            read_answers(write(tmp_path / "a.jsonl", bad), [*ASKED, single])
    path = write(tmp_path / "a.jsonl", least | {"usable": True}, least | {"usable": False})
    with pytest.raises(ValueError, match="line 1: usable there, not usable here"):
        read_answers(path, [single])


def test_a_long_list_of_bad_answers_is_cut(tmp_path):
    path = write(tmp_path / "answers.jsonl", *["{"] * (LISTED + 5))
    with pytest.raises(ValueError, match="and 5 more"):
        read_answers(path, ASKED)


def test_answers_to_other_pictures_are_kept_apart(tmp_path):
    gone = ANSWER | {"digest": "1" * 16, "best": 9}
    path = write(tmp_path / "answers.jsonl", gone, gone, ANSWER, gone)
    found = read_answers(path, ASKED)
    assert len(found.given) == 1 and found.answered == 1
    places = "answers.jsonl, lines 1-2, 4"
    message = f"3 answers are about other images than those of this run ({places})"
    assert message in found.about_elsewhere()


def test_a_file_with_answers_is_only_ever_added_to(tmp_path):
    path = tmp_path / "questions.jsonl"
    add_questions(path, ASKED)
    asked = path.read_bytes()
    assert add_questions(path, ASKED) == 0 and path.read_bytes() == asked
    # nobody has written into it: questions that nobody needs any more leave
    add_questions(path, ASKED[:1])
    assert len(read_lines(path)) == 4 and asked.startswith(path.read_bytes())

    for written in (json.dumps(ANSWER), '{"best": ', "a remark", json.dumps({"seen": 1})):
        path.write_bytes(asked + written.encode())  # without a line feed at its end
        before, mode = path.read_bytes(), 0o640
        path.chmod(mode)
        other = question("train/c", Task.REMOVAL, 2, "2" * 16)
        assert add_questions(path, [other]) == 1
        assert path.read_bytes().startswith(before + b"\n{")
        assert json.loads(path.read_bytes().removeprefix(before)) == json.loads(
            json.dumps(next(other.lines()))
        )
        assert path.stat().st_mode & 0o777 == mode
        after = path.read_bytes()
        assert add_questions(path, [other, *ASKED]) == 0 and path.read_bytes() == after
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_digest_depends_on_everything_that_people_look_at():
    picture = np.zeros((4, 6, 3), np.uint8)
    other = picture.copy()
    other[3, 5, 2] = 1
    pixels = [
        pixel_digest(*one)
        for one in ((picture,), (other,), (picture.reshape(6, 4, 3),), (picture, other),
                    (other, picture), (picture[..., 0],))
    ]  # fmt: skip
    assert len(set(pixels)) == len(pixels)
    plain = ("train/a", Task.FILL, "red", "s", ("a", "b"))
    changed = [
        ("train/b", *plain[1:]),
        ("train/a", Task.REMOVAL, *plain[2:]),
        ("train/a", Task.FILL, "blue", *plain[3:]),
        (*plain[:3], "t", plain[4]),
        (*plain[:4], ("b", "a")),
        (*plain[:4], ("a", "b", "c")),
        (*plain[:4], ("ab",)),
    ]
    digests = {question_digest(*one) for one in (plain, *changed)}
    assert len(digests) == len(changed) + 1 and all(len(one) == 16 for one in digests)


def test_the_page_shows_every_question_and_nothing_in_it_ends_the_script(tmp_path):
    hostile = dataclasses.replace(ASKED[0], prompt="a </script><!-- <b> sign")
    write_question_page(tmp_path / "index.html", [hostile, ASKED[1]])
    text = (tmp_path / "index.html").read_text()
    (content,) = re.findall(r'type="application/json">(.*?)</script>', text)
    shown = json.loads(content)
    for found, question in zip(shown["questions"], (hostile, ASKED[1]), strict=True):
        for name in ("triplet", "digest", "prompt", "image", "mask"):
            assert found[name] == getattr(question, name)
        assert found["candidates"] == list(question.candidates)
        assert found["dimensions"] == list(question.dimensions)
        for dimension in question.dimensions:
            assert shown["dimensions"][dimension]["guideline"]
    # one file: nothing is left to be fetched
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert not re.findall(r"^(?:import|export) ", text, re.MULTILINE)


def test_a_folder_of_guidelines_replaces_texts_and_names_what_it_cannot_use(tmp_path):
    packaged = read_guidelines()
    assert set(packaged) == {*Dimension, "overall", "usable"}
    assert all(one.meaning and "Counts" in one.text for one in map(packaged.get, Dimension))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_guidelines(tmp_path / "none")
    (tmp_path / "structure.txt").write_text("Lines meet.\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "overall-bad-x.jpg")
    (tmp_path / ".hidden").write_text("")
    read = read_guidelines(tmp_path)
    assert read["structure"].text == "Lines meet." and read["overall"].text
    assert read["overall"].bad == (tmp_path / "overall-bad-x.jpg",)
    assert read["consistency"] == packaged["consistency"]

    bad = {
        "structure.md": ("more", "structure.md is a text about structure too"),
        "beauty.md": ("x", "'beauty' is not a dimension"),
        "usable.txt": (" \n", "the file is empty"),
        "usable-good-1.png": ("x", "cannot identify image file"),
        "notes.doc": ("x", "the folder has files <dimension>.md"),
    }
    for name, (text, _) in bad.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_guidelines(tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + len(bad)
    for name, (_, reason) in bad.items():
        assert any(reason in line for line in lines), name
