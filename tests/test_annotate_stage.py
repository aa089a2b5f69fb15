"""People's work in the stage `annotate`: bound to its pictures, never overwritten, waited for."""

import collections
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image

import onereward_jax
from onereward_jax.annotation import Candidate, PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.chain import run_chain
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.common.user_errors import WAITING, WaitingForPeople
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import STAGES, annotate
from onereward_jax.stages.preference_stores import STORE

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
SIZE, COUNT = 32, 2
SETTINGS = (2, 1.0, 1.0, "", 1.0, 0)


def write_run(workdir, numbers, prompt="a red apple", remade=()):
    """Data and candidates of a run, one triplet of each split per number; returns the context.

    Pictures depend on the number alone, candidates also on whether it is among `remade`.
    """
    folder, made = workdir / "folder", workdir / "candidates"
    for path in (workdir / "data", folder, made, workdir / "annotate"):
        if path.exists():
            path.rename(path.with_name(f"{path.name}.old-{len(list(workdir.iterdir()))}"))
    for path in (folder, made, workdir / "annotate"):
        path.mkdir(parents=True)
    rows = []
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "mask.png")
    for number in numbers:
        for split in ("train", "test"):
            rng = np.random.default_rng((number, split == "test"))
            name = f"{split}-{number}.png"
            Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(folder / name)
            task = "removal" if number % 2 else "fill"
            row = {"image": name, "mask": "mask.png", "task": task, "split": split}
            rows.append(row | ({"prompt": prompt} if task == "fill" else {}))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_triplets(workdir / "data", FolderSource(folder, SIZE, (1.0,)))
    with PreferenceStore(made / STORE) as store:
        for split in ("train", "test"):
            triplets = Triplets(workdir / "data", split)
            for row, (name, number) in enumerate(zip(triplets.column("id"), numbers)):
                example = triplets[row]
                source = pixel_digest(example["image"], example["mask"])
                for index in range(COUNT):
                    rng = np.random.default_rng((number, index, number in remade))
                    pixels = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
                    picture = f"{split}-{name}-{index}.png"
                    Image.fromarray(pixels).save(made / picture)
                    candidate = Candidate(
                        *(f"{split}/{name}", index, picture, *SETTINGS),
                        source_digest=source,
                        digest=pixel_digest(pixels),
                    )
                    store.add_candidates([candidate])
    return context_of(workdir)


def context_of(workdir, **annotate_section):
    section = {"by": "people", "path": "", "enough": 1.0} | annotate_section
    config = {
        "annotate": section,
        "data": {"source": "folder", "path": ""},
        "seed": 0,
        "stages": ("data", "candidates", "annotate"),
    }
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return StageContext("annotate", FrozenConfigDict(config), workdir, mesh)


def file_of(context):
    return context.workdir / "questions" / "questions.jsonl"


def read_lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def answer_all(context, **answer):
    """Fills in what is not answered, in place."""
    lines = [{"best": 1, "worst": 0} | answer | line for line in read_lines(file_of(context))]
    write_lines(file_of(context), lines)


def waiting(context):
    with pytest.raises(WaitingForPeople) as said:
        annotate.run(context)
    return str(said.value)


def preferences(context):
    with PreferenceStore(context.folder / STORE) as store:
        return store.preferences()


def test_people_answer_in_place_and_nothing_is_overwritten(tmp_path, capsys):
    context = write_run(tmp_path, [0, 1])  # a fill and a removal of each split: 10 questions
    path = file_of(context)
    assert waiting(context) == (
        f"annotate: 0 of 10 questions are answered; waiting for the rest: {path}; then run the "
        "same command to resume"
    )
    for line in read_lines(path):
        for picture in (line["image"], line["mask"], *line["candidates"]):
            assert (path.parent / picture).is_file() and ".." not in picture
    asked = path.read_bytes()
    waiting(context)
    assert path.read_bytes() == asked

    lines = read_lines(path)
    write_lines(path, [lines[0] | {"best": None, "worst": None}, *lines[1:]])
    some = path.read_bytes()
    assert waiting(context).startswith("annotate: 1 of 10 questions are answered")
    assert path.read_bytes() == some and not (context.folder / STORE).exists()
    some_do = waiting(context_of(tmp_path, enough=0.1))
    assert "no answer prefers a candidate in the split train and test" in some_do
    assert "waiting for 2 answers" in waiting(context_of(tmp_path, enough=0.11))

    write_lines(path, lines)
    answer_all(context, best=None, worst=None)
    with pytest.raises(ValueError, match=r"questions\.jsonl: no answer prefers .* in the split"):
        annotate.run(context)
    one_each = [
        next(line for line in lines if line["triplet"].startswith(split))
        for split in ("train", "test")
    ]
    write_lines(path, [line | {"best": 1, "worst": 0} for line in one_each])
    assert annotate.run(context_of(tmp_path, enough=0.2)) == {
        "pairs": 2, "undecided": 0, "annotators": 1
    }  # fmt: skip

    write_lines(path, [lines[0] | {"best": None, "worst": None}, *lines[1:]])
    answer_all(context)
    every = path.read_bytes()
    # the stage's output follows the answers, whatever was there before
    assert annotate.run(context) == {"pairs": 9, "undecided": 1, "annotators": 1}
    assert path.read_bytes() == every
    lines = read_lines(path)
    write_lines(path, [line | {"best": 0, "worst": 1} for line in lines])
    assert annotate.run(context) == {"pairs": 10, "undecided": 0, "annotators": 1}
    assert {(one.winner, one.loser) for one in preferences(context)} == {(0, 1)}
    capsys.readouterr()


def test_answers_stay_with_their_pictures_when_rows_come_and_go(tmp_path, capsys):
    context = write_run(tmp_path, [0, 1])
    waiting(context)
    answer_all(context)
    annotate.run(context)
    before, stored = file_of(context).read_bytes(), preferences(context)

    context = write_run(tmp_path, [2, 0, 1])  # a row in front of each split
    assert waiting(context).startswith("annotate: 10 of 18 questions are answered")
    assert file_of(context).read_bytes().startswith(before)
    answer_all(context, best=0, worst=1)
    annotate.run(context)
    kept = [one for one in preferences(context) if one.winner == 1]
    assert [(one.triplet_id, one.dimension) for one in kept] == [
        (one.triplet_id, one.dimension) for one in stored
    ]

    grown = file_of(context).read_bytes()
    context = write_run(tmp_path, [1])  # a row goes: its answers are passed over, and kept
    assert annotate.run(context) == {"pairs": 2, "undecided": 0, "annotators": 1}
    assert "annotate: 16 answers are about other images" in capsys.readouterr().out
    assert file_of(context).read_bytes() == grown


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (dict(remade=[0]), 2),  # one triplet's candidates are made anew
        (dict(prompt="a green apple"), 2),
        (dict(remade=[0, 1]), 0),
    ],
)
def test_answers_do_not_count_for_other_pictures_and_count_again_for_theirs(
    tmp_path, change, left, capsys
):
    context = write_run(tmp_path, [0, 1])
    waiting(context)
    answer_all(context)
    answered = file_of(context).read_bytes()
    said = waiting(write_run(tmp_path, [0, 1], **change))
    assert said.startswith(f"annotate: {left} of 10 questions are answered")
    assert f"{10 - left} answers are about other images" in capsys.readouterr().out
    assert file_of(context).read_bytes().startswith(answered)
    context = write_run(tmp_path, [0, 1])
    assert annotate.run(context) == {"pairs": 10, "undecided": 0, "annotators": 1}


def test_the_folder_of_questions_has_everything_that_its_page_shows(tmp_path):
    team = tmp_path / "team"
    team.mkdir()
    (team / "structure.md").write_text("Lines meet.")
    Image.new("RGB", (4, 4)).save(team / "structure-good-#1.png")
    write_run(tmp_path, numbers=[0])
    context = context_of(tmp_path, web={"guidelines": str(team)})
    with pytest.raises(WaitingForPeople):
        annotate.run(context)
    sent = (tmp_path / "questions").rename(tmp_path / "sent")
    (content,) = re.findall(
        r'type="application/json">(.*?)</script>', (sent / "index.html").read_text()
    )
    shown = json.loads(content)
    paths = [
        path
        for one in shown["questions"]
        for path in (one["image"], one["mask"], *one["candidates"])
    ]
    structure = shown["dimensions"]["structure"]
    assert structure["guideline"] == "Lines meet." and len(structure["good"]) == 1
    paths += map(urllib.parse.unquote, structure["good"])
    assert len(paths) == 2 * (2 + COUNT) + 1
    for path in paths:
        Image.open(sent / path).verify()
    (team / "beauty.md").write_text("x")
    with pytest.raises(ValueError, match="web.guidelines.*\n  beauty.md: 'beauty' is not a dim"):
        annotate.check(context)


def test_two_candidates_that_change_places_take_their_answers_with_them(tmp_path, capsys):
    context = write_run(tmp_path, [1])
    waiting(context)
    answer_all(context)
    with PreferenceStore(context.output("candidates") / STORE) as store:
        first, second, *others = store.candidates()
    (context.output("candidates") / STORE).unlink()
    with PreferenceStore(context.output("candidates") / STORE) as store:
        store.add_candidates([
            dataclasses.replace(first, digest=second.digest, picture=second.picture),
            dataclasses.replace(second, digest=first.digest, picture=first.picture),
            *others,
        ])  # fmt: skip
    assert waiting(context).startswith("annotate: 1 of 2 questions are answered")
    assert "1 answer is about other images" in capsys.readouterr().out


def test_answers_without_a_digest_and_a_missing_file_are_refused(tmp_path):
    context = write_run(tmp_path, [0])
    waiting(context)
    path = tmp_path / "answers.jsonl"
    lines = [line | {"best": 1, "worst": 0} for line in read_lines(file_of(context))]
    write_lines(path, [{k: v for k, v in line.items() if k != "digest"} for line in lines])
    with pytest.raises(ValueError, match="8 bad answers\n  line 1: digest is missing"):
        annotate.run(context_of(tmp_path, path=str(path)))
    for section, message in (
        (dict(path=f"{path}x"), "config.annotate.path: there is neither a file nor a folder"),
        (
            dict(by="onereward_jax.mini.oracle_annotator"),
            "config.annotate.by works with the mini world only",
        ),
        (dict(by="me"), "config.annotate.by is 'me': neither 'people', 'web' nor"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            annotate.check(context_of(tmp_path, **section))


def test_all_annotators_count_and_the_run_says_how_far_they_agree(tmp_path, capsys):
    context = write_run(tmp_path, [1])
    waiting(context)
    lines = read_lines(file_of(context))
    answers = tmp_path / "answers"
    answers.mkdir()
    context = context_of(tmp_path, path=str(answers))
    assert waiting(context).startswith(f"annotate: 0 of 2 questions are answered in {answers}; ")
    write_lines(answers / "ann.jsonl", [line | {"best": 1, "worst": 0} for line in lines])
    write_lines(answers / "ben.jsonl", [lines[0] | {"best": 1, "worst": 0}])
    write_lines(answers / "eve.jsonl", [lines[0] | {"best": None, "worst": None}])
    assert annotate.run(context) == {
        "pairs": 3, "undecided": 1, "annotators": 3, "alike": "33.3 %", "alpha": 0.0
    }  # fmt: skip
    told = "multiple answers: 1; equal pairs of answers: 33.3 %; Krippendorff's alpha: 0.0"
    assert told in capsys.readouterr().out
    found = json.loads((context.folder / "agreement.json").read_text())
    assert found["annotators"] == ["ann", "ben", "eve"]
    (cell,) = found["cells"]
    assert (cell["task"], cell["dimension"]) == ("removal", "removal_quality")
    assert cell["rate"] == pytest.approx(1 / 3) and cell["alpha"] == pytest.approx(0.0)
    # ann and ben: the other one and ∅ are a draw; eve, for whom ∅ is half right
    assert cell["one_against_others"] == {"pairs": 1, "accuracy": 0.5}
    who = collections.Counter(one.annotator for one in preferences(context))
    assert who == {"ann": 2, "ben": 1, "eve": 1}


def test_a_command_that_waits_for_people_ends_with_a_code_of_its_own_and_goes_on(tmp_path):
    context = write_run(tmp_path, [1])
    config = load_config(f"{ROOT}/configs/mini.py")
    config.stages = ("annotate",)
    config.annotate.by = "people"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "onereward_jax.main", "--config=configs/mini.py"),
            *(f"--workdir={tmp_path}", "--config.stages=('annotate',)"),
            "--config.annotate.by=people",
        ],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == WAITING == 10, done.stderr
    assert done.stdout.strip().endswith("then run the same command to resume")
    assert "error" not in done.stderr + done.stdout
    answer_all(context)
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    (outcome,) = run_chain(config, tmp_path, mesh, STAGES)
    assert outcome.ran and outcome.record.results["pairs"] == 2
    (outcome,) = run_chain(config, tmp_path, mesh, STAGES)
    assert not outcome.ran
