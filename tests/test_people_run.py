"""`annotate.by="web"`: a run that serves its questions, is killed and stopped, and goes on."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import jax
import pytest
from ml_collections import FrozenConfigDict
from processes import ROOT
from test_annotate_stage import read_lines, write_lines, write_run
from web_annotators import SET, Browser, served, settings_of, token_of

from onereward_jax import people
from onereward_jax.annotation.server import AnswerDatabase, answer_lines
from onereward_jax.chain import fingerprints, run_chain
from onereward_jax.chain.saved_command import Command, write_command
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.common.user_errors import USER_ERROR, Stopped, WaitingForPeople
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.preemption import hearing_signals
from onereward_jax.stages import STAGES, annotate
from onereward_jax.stages.people_answers import read_all_answers

CONFIG = f"{ROOT}/configs/mini.py"


@pytest.fixture(scope="module")
def port():
    """Nobody listens on it, and no client is given it, so that none connects to itself."""
    while True:
        number = random.Random().randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", number))
            return number


def config_of(port, **web):
    config = load_config(CONFIG)
    config.stages = ("annotate",)
    config.annotate.by = "web"
    config.annotate.web.update({"port": port, **web})
    return config


def run(workdir, config):
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    (outcome,) = run_chain(config, workdir, mesh, STAGES)
    return outcome


def context_of(workdir, config):
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return StageContext("annotate", FrozenConfigDict(config), workdir, mesh)


def when_served(workdir, port, then):
    """Calls `then` with a new annotator once the run serves its questions, in a thread."""

    def wait():
        database = workdir / "people" / "people.sqlite"
        while True:
            with contextlib.suppress(Exception):
                assert database.exists()
                browser = Browser(f"http://127.0.0.1:{port}", token_of(workdir, "ben"))
                break
        then(browser)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_run_serves_its_questions_is_killed_goes_on_and_knows_its_answers(tmp_path, port, capsys):
    write_run(tmp_path, [0, 1])  # a fill and a removal of each split: 10 questions, 4 items
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "onereward_jax.main", f"--config={CONFIG}"),
            *(f"--workdir={tmp_path}", "--config.stages=('annotate',)"),
            *("--config.annotate.by=web", f"--config.annotate.web.port={port}"),
        ],
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if link := re.search(r"(http\S+)/#token=(\S+)", line):
            break
    assert link, "the run has ended"
    lea = Browser(link[1], link[2])
    assert lea.session()["admin"]
    item = lea.next()
    said = lea.answer(item)
    process.kill()
    process.communicate()

    config = config_of(port)
    answered = len(item["dimensions"])
    thread = when_served(tmp_path, port, lambda ben: ben.work())
    outcome = run(tmp_path, config)
    thread.join()
    told = capsys.readouterr().out
    assert f"annotate: {answered} of 10 questions are answered; the rest is asked at" in told
    assert "token=" not in told  # there is an admin already
    assert outcome.ran and outcome.record.results["annotators"] == 2
    assert outcome.record.results["pairs"] + outcome.record.results["undecided"] == 10
    assert not run(tmp_path, config).ran  # the record has the answers that were given meanwhile

    before = outcome.record.identity
    with served(tmp_path) as server:  # somebody changes an answer later
        lea = Browser(server.address, token_of(tmp_path, "admin"))
        first, other = item["dimensions"][0], {"best": None, "worst": None}
        if said[first] == other:
            other = {"best": 0, "worst": 1}
        assert lea.put(item, first, **other).status_code == 200
    again = run(tmp_path, config)
    assert again.ran and again.record.identity != before
    assert "the content of config.annotate.path has changed" in capsys.readouterr().out

    # The same answers as a file, without the database: nothing has changed.
    with contextlib.closing(AnswerDatabase(settings_of(tmp_path).database)) as database:
        write_lines(tmp_path / "answers.jsonl", list(answer_lines(database, SET)))
    (tmp_path / "people").rename(tmp_path / "elsewhere")
    config.annotate.by, config.annotate.path = "people", str(tmp_path / "answers.jsonl")
    assert not run(tmp_path, config).ran


def test_a_signal_ends_the_server_and_the_same_command_goes_on(tmp_path, port):
    write_run(tmp_path, [1])

    def stop(ben):
        item = ben.next()
        ben.put(item, "removal_quality", best=0, worst=1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = when_served(tmp_path, port, stop)
    with hearing_signals(), pytest.raises(Stopped, match="stopped at . of 2 questions"):
        run(tmp_path, config_of(port))
    thread.join()
    thread = when_served(
        tmp_path, port, lambda ben: ben.put(ben.next(), "removal_quality", best=1, worst=0)
    )
    assert run(tmp_path, config_of(port)).record.results["pairs"] == 2
    thread.join()


def test_a_run_of_several_processes_names_the_command_that_serves(tmp_path, port, monkeypatch):
    write_run(tmp_path, [1])
    monkeypatch.setattr(annotate, "is_multiprocess", lambda: True)
    with pytest.raises(WaitingForPeople) as told:
        annotate.run(context_of(tmp_path, config_of(port, overlap=2)))
    assert str(told.value) == (
        "annotate: 0 of 2 questions are answered by 2 annotators; waiting for the rest: "
        f"{tmp_path}/questions/questions.jsonl; a run with several processes does not serve them "
        f"itself: onereward people serve --workdir={tmp_path}; then run the same command to resume"
    )


def test_what_cannot_be_served_is_refused_before_the_first_stage(tmp_path, port):
    def refused(**web):
        with pytest.raises((ValueError, OSError)) as told:
            annotate.check(context_of(tmp_path, config_of(port, **web)))
        return str(told.value)

    assert refused(gold="x").startswith("config.annotate.web.gold: there is neither a file nor")
    assert refused(guidelines="x").startswith("config.annotate.web.guidelines: there is no folder")
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "beauty.md").touch()
    assert "beauty.md: 'beauty' is not a dimension; there" in refused(
        guidelines=f"{tmp_path}/guide"
    )
    assert "a database cannot be in a bucket" in refused(database="gs://bucket/people.sqlite")
    assert "cannot be opened: connection" in refused(database="postgresql://me@/x?host=/nowhere")
    write_run(tmp_path, [1])
    with served(tmp_path) as server:
        taken = int(server.address.rpartition(":")[2])
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1, port {taken}: "):
            run(tmp_path, config_of(taken))


def test_files_the_database_and_gold_answers_are_read_together(tmp_path, port):
    context = context_of(tmp_path, config_of(port))
    write_run(tmp_path, [0, 1])
    with pytest.raises(WaitingForPeople):
        config = config_of(port)
        config.annotate.by = "people"
        annotate.run(context_of(tmp_path, config))
    from onereward_jax.annotation.server.question_files import read_questions

    questions = read_questions(tmp_path / SET / "questions.jsonl")
    with served(tmp_path) as server:
        Browser(server.address, token_of(tmp_path, "ann")).work()
    lines = read_lines(tmp_path / SET / "questions.jsonl")
    file = tmp_path / "answers.jsonl"
    write_lines(file, [lines[0] | {"best": 1, "worst": 0, "annotator": "ben"}])
    write_lines(tmp_path / "gold.jsonl", [lines[1] | {"best": 0, "worst": 1}])

    def read(**web):
        return read_all_answers(
            context_of(tmp_path, config_of(port, **web)), str(file), SET, questions
        )

    digest = fingerprints.answers("annotate.path", folder=SET)
    shutil.copy(tmp_path / "gold.jsonl", tmp_path / "copy.jsonl")
    without, *with_it = (
        digest(FrozenConfigDict(config_of(port, gold=gold)), tmp_path)
        for gold in ("", str(tmp_path / "gold.jsonl"), str(tmp_path / "copy.jsonl"))
    )
    assert without != with_it[0] == with_it[1]
    assert len(read().given) == 11 and {one.annotator for one in read().given} == {"ann", "ben"}
    with_gold = read(gold=str(tmp_path / "gold.jsonl")).given
    assert len(with_gold) == 11
    (gold,) = [
        one for one in with_gold
        if (one.digest, one.dimension) == (lines[1]["digest"], lines[1]["dimension"])
    ]  # fmt: skip
    assert (gold.annotator, gold.best, gold.worst) == ("gold", 0, 1)
    (of_ann,) = [one for one in read().given if one.annotator == "ann" and one.seconds != 1.5] or [
        None
    ]
    assert of_ann is None  # the time spent comes along
    (found,) = [
        one for one in read().given
        if (one.annotator, one.digest, one.dimension)
        == ("ann", lines[0]["digest"], lines[0]["dimension"])
    ]  # fmt: skip
    other = {"best": 1, "worst": 0} if found.best != 1 else {"best": 0, "worst": 1}
    write_lines(file, [lines[0] | other | {"annotator": "ann"}])
    with pytest.raises(ValueError, match="line 1: 'ann' gave a different answer on the web page"):
        read()
    assert context.config.annotate.by == "web"


def test_the_command_manages_annotators_and_says_what_is_wrong(tmp_path, port, capsys):
    def command(*arguments, code=0):
        if code:
            with pytest.raises(SystemExit) as ended:
                people.main([*arguments])
            assert ended.value.code == code
        else:
            people.main([*arguments])
        said = capsys.readouterr()
        return (said.err if code else said.out).strip()

    where = f"--workdir={tmp_path}"
    assert command("serve", where, code=USER_ERROR) == (
        f"error: there is no run in {tmp_path} (command.json is missing)"
    )
    assert "required: --workdir" in command("token", "--name=ann", code=USER_ERROR)
    write_run(tmp_path, [1])
    overrides = ("--config.annotate.by=web", f"--config.annotate.web.port={port}")
    write_command(tmp_path, Command(CONFIG, overrides))
    told = command("annotators", where, code=USER_ERROR)
    assert told.startswith("error: nobody has a link yet: there is no database sqlite:///")
    link = command("token", where, "--name=ann")
    assert re.fullmatch(rf"http://127.0.0.1:{port}/#token=1-[\w-]{{43}}", link)
    command("token", where, "--name=lea", "--admin")
    assert "--name=gold is the name" in command("token", where, "--name=gold", code=USER_ERROR)
    assert command("annotators", where) == (
        "ann\tannotator\tlast seen: never\nlea\tadmin\tlast seen: never"
    )
    assert "there is no annotator 'eve'" in command("revoke", where, "--name=eve", code=USER_ERROR)
    command("revoke", where, "--name=lea")
    assert "lea\trevoked" in command("annotators", where)
    with pytest.raises(WaitingForPeople):
        config = config_of(port)
        config.annotate.by = "people"
        annotate.run(context_of(tmp_path, config))
    server = subprocess.Popen(
        [sys.executable, "-m", "onereward_jax.people", "serve", where],
        cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout.readline() == f"serving {tmp_path} at http://127.0.0.1:{port}\n"
    address, _, token = link.partition("/#token=")
    Browser(address, token).work()
    server.send_signal(signal.SIGTERM)
    assert "stopped, as asked; all answers are saved" in server.communicate()[0]
    assert server.returncode == 0
    exported = [json.loads(line) for line in command("export", where).split("\n")]
    assert [line["annotator"] for line in exported] == ["ann", "ann"]
