"""Blinded questions about base and policy: who answers cannot know, and what he says is counted."""

import collections
import json

import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from test_evaluate_stage import context, written  # noqa: F401

from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gsb import Verdict, good_same_bad
from onereward_jax.stages.evaluate.people_verdicts import ask_people, check_people
from onereward_jax.tasks import Task

BASE, POLICY = 40, 200
"""About the brightness of all that the two editors make."""


def with_fields(given, **fields):
    config = given.config.as_configdict().copy_and_resolve_references()
    config.evaluate.update(fields)
    return StageContext("evaluate", FrozenConfigDict(config), given.workdir, given.mesh)


@pytest.fixture
def world(context):  # noqa: F811
    """The stage with both editors' pictures of four triplets of two tasks each, and `ask`."""
    context = with_fields(context, questions=4)
    triplets = Triplets(context.workdir / "data", "test")
    rng = np.random.default_rng(0)
    made = [
        written(context, triplets, name, rng.integers(level - 9, level, (8, 64, 64, 3), np.uint8))
        for name, level in (("base", BASE), ("policy", POLICY))
    ]

    def ask(context=context):
        return ask_people(context, triplets, range(8), *made)

    return context, ask, made


def file_of(context):  # noqa: F811
    return context.workdir / "questions-ab" / "questions.jsonl"


def read_lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def preferring(context, line, level):  # noqa: F811
    """The line, answered by somebody who looks at the pictures and prefers those of a level."""
    means = [
        np.asarray(Image.open(file_of(context).parent / path)).mean() for path in line["candidates"]
    ]
    best = int(np.argmin(np.abs(np.array(means) - level)))
    return line | {"best": best, "worst": 1 - best}


def counts(opinion):
    found = good_same_bad(opinion.comparisons)
    return {task: (one.good, one.same, one.bad) for task, one in found.items()}


def test_answers_become_good_same_bad_though_nobody_knows_who_made_what(world):
    context, ask, _ = world  # noqa: F811
    opinion = ask()
    assert opinion.comparisons == ()
    assert opinion.told == "0 of 8 questions of questions-ab/questions.jsonl are answered"
    lines = read_lines(file_of(context))
    assert {(line["dimension"], len(line["candidates"])) for line in lines} == {("overall", 2)}
    text = file_of(context).read_text()
    assert "base" not in text and "policy" not in text and "evaluate" not in text
    first = collections.Counter(preferring(context, line, POLICY)["best"] for line in lines)
    assert 0 < first[0] < 8  # either place

    write_lines(file_of(context), [preferring(context, line, POLICY) for line in lines])
    assert counts(ask()) == {Task.FILL: (4, 0, 0), Task.REMOVAL: (4, 0, 0)}
    write_lines(file_of(context), [preferring(context, line, BASE) for line in lines[:2]])
    opinion = ask()
    assert counts(opinion) == {Task.FILL: (0, 0, 2)} and opinion.told.startswith("2 of 8 ")
    # the file was all answers: what is not answered stands behind them
    assert len(read_lines(file_of(context))) == 8

    answers = context.workdir / "answers"
    answers.mkdir()
    write_lines(answers / "ann.jsonl", [preferring(context, line, POLICY) for line in lines])
    same = {"best": None, "worst": None}
    write_lines(answers / "ben.jsonl", [line | same for line in lines[:4]])
    opinion = ask(with_fields(context, answers=str(answers)))
    assert counts(opinion) == {Task.FILL: (4, 4, 0), Task.REMOVAL: (4, 0, 0)}
    assert opinion.told.startswith("8 of 8 ") and "by 2 annotators; 0 % of" in opinion.told


def test_answers_are_kept_for_their_pictures_and_files_are_added_to(world, capsys):
    context, ask, (_, policy) = world  # noqa: F811
    ask()
    lines = read_lines(file_of(context))
    write_lines(file_of(context), [preferring(context, line, POLICY) for line in lines])
    before = file_of(context).read_bytes()
    assert len(ask().comparisons) == 8 and file_of(context).read_bytes() == before

    row = next(iter(policy.names))
    old = policy[row]
    policy.write(row, np.zeros_like(old))  # a policy that was trained further
    opinion = ask()
    assert len(opinion.comparisons) == 7 and opinion.told.startswith("7 of 8 ")
    assert "1 answer is about other images" in capsys.readouterr().out
    assert file_of(context).read_bytes().startswith(before)
    policy.write(row, old)
    assert [one.verdict for one in ask().comparisons] == [Verdict.GOOD] * 8


def test_nobody_is_asked_where_the_config_says_so(world, tmp_path):
    context, ask, _ = world  # noqa: F811
    assert ask(with_fields(context, questions=0)) is None and not file_of(context).exists()
    assert ask(with_fields(context, questions=1)).told.startswith("0 of 2 ")
    check_people(context)
    with pytest.raises(ValueError, match="config.evaluate.questions is 0: no questions"):
        check_people(with_fields(context, questions=0, answers=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="config.evaluate.answers: there is neither"):
        check_people(with_fields(context, answers="nowhere.jsonl"))
