"""What a team does with people, from a folder of photographs to what people say of the result.

Every step is the command that the documentation names, on one work folder: choose pictures, serve
the questions, train the judge on soft labels as a LoRA, improve the editor, compare, exchange.
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys

import pytest
from processes import ROOT, free_address

from onereward_jax.data.row_files import METADATA

pytestmark = pytest.mark.slow

ANNOTATORS = ("ann", "ben", "lea")
TO_ANSWERS = ("curate", "data", "embed", "candidates", "annotate")


def command(*arguments, code=0):
    """Runs `python -m onereward_jax.<...>`; returns what it said."""
    module, *rest = arguments
    done = subprocess.run(
        [sys.executable, "-m", f"onereward_jax.{module}", *map(str, rest)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def link_in(process):
    """The login link that a process prints."""
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"(http\S+)/#token=(\S+)", line):
            return found[1], found[2]
    raise AssertionError("".join(said))


def all_annotate(workdir, address, set_name):
    """Three annotators with links of their own answer at once until nothing is left."""
    from web_annotators import Browser

    def browser(name):
        link = command("people", "token", f"--workdir={workdir}", f"--name={name}")
        return Browser(address, link.strip().partition("#token=")[2])

    with concurrent.futures.ThreadPoolExecutor() as threads:
        browsers = list(threads.map(browser, ANNOTATORS))
        answered = threads.map(lambda one: len(one.work(set_name)), browsers)
        return dict(zip(ANNOTATORS, answered))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs with captions, some of which must be left out; and a tiny CLIP."""
    from curate_pictures import make_clip, make_pictures

    top = tmp_path_factory.mktemp("team")
    good = make_pictures(top / "photographs")
    for number, name in enumerate(good):
        path = (top / "photographs" / name).with_suffix(".txt")
        path.write_text(f"ball number {number} on a wall")
    return top / "photographs", make_clip(top / "clip", top / "photographs")


def flags_of(photographs, port):
    """Of a run from the photographs to the answers."""
    pictures, clip = photographs
    return (
        "--config=configs/rehearsal.py",
        f"--config.curate.pictures={pictures}",
        f"--config.curate.clip={clip}",
        "--config.curate.clusters=4",
        "--config.curate.near=4",
        "--config.curate.far=1",
        "--config.curate.rows=2",
        "--config.curate.duplicates=0.99999",  # the tiny CLIP tells little apart
        "--config.curate.batch_size=8",
        "--config.data.path=stage:curate",
        "--config.candidates.chosen_by=clusters",
        "--config.annotate.by=web",
        f"--config.annotate.web.port={port}",
        "--config.mesh.data=-1",
        "--config.mesh.tensor=1",
    )


def test_a_team_goes_from_photographs_to_what_people_say(photographs, tmp_path):
    workdir, port = tmp_path / "run", free_address().rpartition(":")[2]
    flags = (
        *flags_of(photographs, port),
        f"--config.stages={TO_ANSWERS + ('reward', 'rl', 'evaluate')}",
        "--config.annotate.web.overlap=2",
        "--config.reward.consensus=soft",
        "--config.reward.undecided=half",
        "--config.reward.lora.rank=4",
        "--config.evaluate.questions=2",
        "--config.evaluate.usability=2",
    )
    run = (sys.executable, "-m", "onereward_jax.main", f"--workdir={workdir}", *flags)
    with subprocess.Popen(
        run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        address, _ = link_in(process)
        answered = all_annotate(workdir, address, "questions")
        said = process.stdout.read()
    assert process.returncode == 0, said[-4000:]
    rows = (workdir / "curate" / METADATA).read_text().splitlines()
    assert 2 * 10 <= len(rows) <= 2 * 4 * 5
    questions = {
        json.loads(line)["digest"]
        for line in (workdir / "questions" / "questions.jsonl").read_text().splitlines()
    }
    assert sum(answered.values()) == 2 * len(questions)
    pairs = [
        json.loads(line)
        for line in (workdir / "reward" / "pairs.jsonl").read_text().split("\n")
        if line
    ]
    assert {0.5} < {pair["label"] for pair in pairs} and max(pair["votes"] for pair in pairs) == 2
    splits = {}
    for pair in pairs:
        splits.setdefault(pair["source"], set()).add(pair["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert (workdir / "reward" / "judge_adapter" / "adapter_model.safetensors").is_file()

    report = workdir / "evaluate" / "report" / "summary.json"
    assert not json.loads(report.read_text())["people"]["gsb"]
    serve = (sys.executable, "-m", "onereward_jax.people", "serve", f"--workdir={workdir}")
    with subprocess.Popen(
        serve,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        all_annotate(workdir, address, "questions-ab")
        process.terminate()
    told = command("main", f"--workdir={workdir}", "--resume")
    people = json.loads(report.read_text())["people"]
    assert (
        set(people["usable"]) == {"base", "policy"} and "overall" in people["gsb"]["policy"]["fill"]
    )
    assert "What people say" in report.with_name("index.html").read_text()
    assert "by 2 annotators" in told or "by 3 annotators" in told
    assert "edits: " not in told  # nothing was generated again


def test_preferences_leave_the_run_and_train_another_judge(photographs, tmp_path):
    """A run up to the answers, exported for the hub, imported, and learnt from without the run."""
    workdir, port = tmp_path / "run", free_address().rpartition(":")[2]
    flags = (*flags_of(photographs, port), f"--config.stages={TO_ANSWERS}")
    run = (sys.executable, "-m", "onereward_jax.main", f"--workdir={workdir}", *flags)
    with subprocess.Popen(
        run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        address, _ = link_in(process)
        all_annotate(workdir, address, "questions")
        said = process.stdout.read()
    assert process.returncode == 0, said[-4000:]
    hub, back = tmp_path / "hub", tmp_path / "back"
    command("preferences", "export", f"--workdir={workdir}", "--format=huggingface", f"--to={hub}")
    command("preferences", "import", "--format=huggingface", f"--from={hub}", f"--to={back}")
    other = tmp_path / "other"
    command(
        "main",
        "--config=configs/rehearsal.py",
        f"--workdir={other}",
        "--config.stages=('reward',)",
        f"--config.reward.preferences=('{back}',)",
        "--config.mesh.data=-1",
        "--config.mesh.tensor=1",
    )
    assert json.loads((other / "reward" / "accuracy.json").read_text())["rows"]
