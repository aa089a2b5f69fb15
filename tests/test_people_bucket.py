"""`onereward people` for a run in a bucket: the questions come from there, the answers do not."""

import os
import signal
import subprocess
import sys

import pytest
from postgresql_server import new_database
from processes import ROOT, free_address
from web_annotators import SET, Browser, write_questions

from onereward_jax import people
from onereward_jax.chain.saved_command import Command, write_command
from onereward_jax.common.user_errors import USER_ERROR
from onereward_jax.storage import WorkingCopy


def test_the_questions_of_a_run_in_a_bucket_are_served(
    bucket, postgresql, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path / "copies"))
    port = free_address().rpartition(":")[2]
    flags = (f"--config.annotate.web.port={port}",)
    made = tmp_path / "made"
    write_questions(made, 2)
    copy = WorkingCopy(bucket, made)

    def publish(*overrides):
        write_command(made, Command(f"{ROOT}/configs/mini.py", (*flags, *overrides)))
        copy.publish_file("command.json")

    copy.publish(SET)
    publish()
    where = f"--workdir={bucket.url}"
    with pytest.raises(SystemExit) as ended:
        people.main(["serve", where])
    assert ended.value.code == USER_ERROR
    assert f"the work folder {bucket.url} is in a bucket, where" in capsys.readouterr().err
    publish(f"--config.annotate.web.database={new_database(postgresql)}")
    people.main(["token", where, "--name=ann"])
    address, _, token = capsys.readouterr().out.strip().partition("/#token=")
    server = subprocess.Popen(
        [sys.executable, "-m", "onereward_jax.people", "serve", where],
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == f"serving {bucket.url} at {address}\n"
    ann = Browser(address, token)
    item = ann.next()
    assert ann.http.get(item["pictures"][0]).headers["content-type"] == "image/png"
    assert len(ann.work()) == 2
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    people.main(["export", where])
    assert len(capsys.readouterr().out.splitlines()) == 2
