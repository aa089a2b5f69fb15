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
from onereward_jax.stages.compared_editors import digest_of_editors, other_editors
from onereward_jax.stages.evaluate.other_pictures import other_pictures
from onereward_jax.stages.evaluate.people_verdicts import ask_people, check_people
from onereward_jax.tasks import DIMENSIONS, Task

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
        return ask_people(context, triplets, range(8), dict(zip(("base", "policy"), made)))

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


def counts(opinion, editor="policy", dimension="overall"):
    found = good_same_bad(opinion.comparisons.get((editor, dimension), ()))
    return {task: (one.good, one.same, one.bad) for task, one in found.items()}


ASKED = 4 * (len(DIMENSIONS[Task.FILL]) + 1) + 4 * (len(DIMENSIONS[Task.REMOVAL]) + 1)
"""Questions about four triplets of both tasks."""


def test_answers_become_good_same_bad_though_nobody_knows_who_made_what(world):
    context, ask, _ = world  # noqa: F811
    opinion = ask()
    assert not opinion.comparisons and opinion.counted(0) is None
    assert opinion.told == f"0 of {ASKED} questions of questions-ab/ are answered"
    lines = read_lines(file_of(context))
    dimensions = collections.Counter(line["dimension"] for line in lines)
    assert dimensions["overall"] == 8 and dimensions["structure"] == 4
    assert {len(line["candidates"]) for line in lines} == {2}
    text = file_of(context).read_text()
    assert "base" not in text and "policy" not in text and "evaluate" not in text
    overall = [line for line in lines if line["dimension"] == "overall"]
    first = collections.Counter(preferring(context, line, POLICY)["best"] for line in overall)
    assert 0 < first[0] < 8  # either place
    files = [file_of(context).parent / path for line in lines for path in line["candidates"]]
    assert len({path.stat().st_mtime for path in files}) == 1  # or it tells who made what

    write_lines(file_of(context), [preferring(context, line, POLICY) for line in lines])
    opinion = ask()
    assert counts(opinion) == {Task.FILL: (4, 0, 0), Task.REMOVAL: (4, 0, 0)}
    assert counts(opinion, dimension="structure") == {Task.FILL: (4, 0, 0)}
    cells = opinion.counted(0).gsb["policy"]
    assert len(cells) == len(DIMENSIONS[Task.FILL]) + len(DIMENSIONS[Task.REMOVAL]) + 2
    assert cells[Task.REMOVAL, "removal_quality"].difference == 1

    fill = [line for line in overall if line["task"] == "fill"]
    write_lines(file_of(context), [preferring(context, line, BASE) for line in fill[:2]])
    opinion = ask()
    assert counts(opinion) == {Task.FILL: (0, 0, 2)} and opinion.told.startswith("2 of ")
    # the file was all answers: what is not answered stands behind them
    assert len(read_lines(file_of(context))) == ASKED

    answers = context.workdir / "answers"
    answers.mkdir()
    write_lines(answers / "ann.jsonl", [preferring(context, line, POLICY) for line in overall])
    same = {"best": None, "worst": None}
    write_lines(answers / "ben.jsonl", [line | same for line in fill])
    opinion = ask(with_fields(context, answers=str(answers)))
    assert counts(opinion) == {Task.FILL: (4, 4, 0), Task.REMOVAL: (4, 0, 0)}
    assert opinion.told.startswith("8 of ") and "by 2 annotators; 0 % of" in opinion.told

    # What is known to be right is the opinion of whoever wrote the gold file, not of annotators.
    write_lines(context.workdir / "gold.jsonl", [preferring(context, fill[0], BASE)])
    gold = with_fields(context, answers=str(answers)).config.as_configdict()
    gold.annotate = {"web": {"gold": str(context.workdir / "gold.jsonl")}}
    opinion = ask(StageContext("evaluate", FrozenConfigDict(gold), context.workdir, context.mesh))
    assert counts(opinion) == {Task.FILL: (3, 3, 0), Task.REMOVAL: (4, 0, 0)}
    assert "by 2 annotators" in opinion.told

    (answers / "ben.jsonl").rename(answers / "gold.jsonl")
    with pytest.raises(ValueError, match="gold.jsonl, line 1: the annotator 'gold' is the one of"):
        ask(with_fields(context, answers=str(answers)))


def test_answers_are_kept_for_their_pictures_and_files_are_added_to(world, capsys):
    context, ask, (_, policy) = world  # noqa: F811
    ask()
    lines = [line for line in read_lines(file_of(context)) if line["dimension"] == "overall"]
    others = ASKED - len(lines)
    write_lines(file_of(context), [preferring(context, line, POLICY) for line in lines])
    ask()
    before = file_of(context).read_bytes()
    assert len(read_lines(file_of(context))) == len(lines) + others
    assert len(ask().overall("policy")) == 8 and file_of(context).read_bytes() == before

    row = next(iter(policy.names))
    old = policy[row]
    policy.write(row, np.zeros_like(old))  # a policy that was trained further
    opinion = ask()
    assert len(opinion.overall("policy")) == 7 and opinion.told.startswith("7 of ")
    assert "1 answer is about other images" in capsys.readouterr().out
    assert file_of(context).read_bytes().startswith(before)
    policy.write(row, old)
    assert [one.verdict for one in ask().overall("policy")] == [Verdict.GOOD] * 8


def test_people_say_what_is_usable_of_each_editor_without_knowing_which(world):
    context, ask, (base, policy) = world  # noqa: F811
    policy.write(0, base[0])  # the same result: one question about both
    context = with_fields(context, questions=0, usability=3)
    assert ask(context).told.startswith("0 of 11 ")
    lines = read_lines(file_of(context))
    assert {(line["dimension"], len(line["candidates"])) for line in lines} == {("usable", 1)}
    triplets = [line["triplet"] for line in lines]
    assert any(a != b for a, b in zip(triplets[::2], triplets[1::2]))  # not in pairs

    folder = file_of(context).parent

    def bright(line):
        return bool(np.asarray(Image.open(folder / line["candidates"][0])).mean() > 100)

    write_lines(file_of(context), [line | {"usable": bright(line)} for line in lines])
    found = ask(context).counted(0).usable
    assert {task: one.share for task, one in found["base"].items()} == {
        Task.FILL: 0.0,
        Task.REMOVAL: 0.0,
    }
    assert found["policy"][Task.FILL].share == pytest.approx(2 / 3)
    assert found["policy"][Task.REMOVAL].share == 1.0 and found["policy"][Task.REMOVAL].votes == 3
    low, high = found["policy"][Task.FILL].interval
    assert 0 < low < 2 / 3 < high < 1


def test_other_editors_are_compared_with_the_base(world, tmp_path):
    """Finished images from elsewhere, of some triplets, with an orientation and another format."""
    context, _, (base, policy) = world  # noqa: F811
    triplets = Triplets(context.workdir / "data", "test")
    folder = tmp_path / "shop"
    folder.mkdir()
    Image.fromarray(base[0]).save(folder / "no-triplet.png")
    context = with_fields(context, editors=(f"shop={folder}",))
    with pytest.raises(ValueError, match="no image in .* is named after a compared triplet, such"):
        other_pictures(context, triplets, range(8))
    Image.fromarray(base[0][:-1]).save(folder / f"{base.names[0]}.png")
    (folder / f"{base.names[1]}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="2 bad images in (.|\n)* is 64x63 pixels, its triplet 64"):
        other_pictures(context, triplets, range(8))

    sideways = Image.fromarray(np.rot90(policy[0]))
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(folder / f"{base.names[0]}.png", exif=exif)
    Image.fromarray(policy[1]).save(folder / f"{base.names[1]}.webp", lossless=True)
    with pytest.raises(ValueError, match=f"has {base.names[1]}.png and {base.names[1]}.webp: keep"):
        other_pictures(context, triplets, range(8))
    (folder / f"{base.names[1]}.png").unlink()
    others, to_generate = other_pictures(context, triplets, range(8))
    assert not to_generate and list(others["shop"].names) == [0, 1]
    np.testing.assert_array_equal(others["shop"][0], policy[0])

    editors = {"base": base, "policy": policy, **others}
    assert ask_people(context, triplets, range(8), editors).told.startswith(f"0 of {ASKED} ")
    lines = read_lines(file_of(context))  # no more: shop's images are those of the policy
    write_lines(file_of(context), [preferring(context, line, POLICY) for line in lines])
    opinion = ask_people(context, triplets, range(8), editors)
    assert counts(opinion, "shop") == {Task.FILL: (2, 0, 0)}
    assert counts(opinion) == {Task.FILL: (4, 0, 0), Task.REMOVAL: (4, 0, 0)}


def test_editors_with_weights_are_generated_in_a_folder_of_their_content(world, tmp_path):
    context, _, (base, _) = world  # noqa: F811
    triplets = Triplets(context.workdir / "data", "test")
    weights = tmp_path / "other"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    context = with_fields(context, editors=(f"other={weights}",))
    found, ((pictures, folder),) = other_pictures(context, triplets, range(8))
    assert folder == weights and pictures is found["other"] and pictures.missing() == list(range(8))
    before = digest_of_editors(context.config, context.workdir)
    (weights / "config.json").write_text("{ }")
    again, _ = other_pictures(context, triplets, range(8))
    assert again["other"].folder != pictures.folder
    assert digest_of_editors(context.config, context.workdir) != before
    for editors, told in (
        ((f"base={weights}",), "two editors named 'base'"),
        ((f"a={weights}", f"a={weights}"), "two editors named 'a'"),
        ((f"a={tmp_path / 'nowhere'}",), "there is no file or folder"),
        ((f"a={base.folder.parent}",), "has neither a transformer"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=told):
            other_editors(with_fields(context, editors=editors).config)


def test_nobody_is_asked_where_the_config_says_so(world, tmp_path):
    context, ask, _ = world  # noqa: F811
    assert ask(with_fields(context, questions=0)) is None and not file_of(context).exists()
    assert ask(with_fields(context, questions=1)).told.startswith("0 of 7 ")
    check_people(context)
    with pytest.raises(ValueError, match="config.evaluate.questions is 0: no questions"):
        check_people(with_fields(context, questions=0, answers=str(tmp_path)))
    with pytest.raises(ValueError, match="config.evaluate.editors is .*: no questions"):
        check_people(with_fields(context, questions=0, editors=("a=b",)))
    with pytest.raises(FileNotFoundError, match="config.evaluate.answers: there is neither"):
        check_people(with_fields(context, answers="nowhere.jsonl"))
