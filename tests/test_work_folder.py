"""A work folder: one run holds it at a time, and remembers the command it was started with."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from ml_collections import ConfigDict

import onereward_jax
from onereward_jax.chain.lock_backends import FILE
from onereward_jax.chain.saved_command import (
    Command,
    given_command,
    last_flags,
    read_command,
    write_command,
)
from onereward_jax.chain.workdir_lock import WorkdirLock, WorkdirLocked

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
HOLD = """
import pathlib, sys, time
from onereward_jax.chain.workdir_lock import WorkdirLock
with WorkdirLock(pathlib.Path(sys.argv[1]), beat_seconds=0.1):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def pretend_elsewhere(folder):
    """As if the holder ran on another host: its process number says nothing here."""
    held = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(held | {"system": "elsewhere", "host": "far"}))
    return held


def test_a_folder_in_use_is_refused_and_that_of_a_dead_run_is_taken_over(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(WorkdirLocked, match=rf"in use by process {process.pid} on .*, since"):
            WorkdirLock(tmp_path).__enter__()
        process.send_signal(signal.SIGKILL)  # nobody has asked for its exit code yet: a zombie
        time.sleep(0.2)
        with WorkdirLock(tmp_path):
            assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / FILE).exists()


def test_a_lock_that_is_being_written_is_not_taken(tmp_path):
    process = hold(tmp_path)
    held = (tmp_path / FILE).read_text()
    process.send_signal(signal.SIGSTOP)  # it lives, and does not write the file anew
    try:
        (tmp_path / FILE).write_text("")
        writing = threading.Timer(0.2, (tmp_path / FILE).write_text, [held])
        writing.start()
        with pytest.raises(WorkdirLocked, match=f"in use by process {process.pid}"):
            WorkdirLock(tmp_path).__enter__()
        writing.join()
    finally:
        process.kill()
        process.wait()


def test_a_holder_on_another_host_is_known_by_its_beat(tmp_path, capsys):
    with WorkdirLock(tmp_path, beat_seconds=600.0):
        held = pretend_elsewhere(tmp_path)
        living = subprocess.Popen(
            [sys.executable, "-c", f"""
import json, pathlib, time
path = pathlib.Path({str(tmp_path / FILE)!r})
for beat in range(1000):
    holder = json.loads(path.read_text()) | {{"beat": beat}}
    pathlib.Path(str(path) + ".new").write_text(json.dumps(holder))
    pathlib.Path(str(path) + ".new").rename(path)
    time.sleep(0.1)
"""]
        )  # fmt: skip
        try:
            with pytest.raises(WorkdirLocked, match=r"in use by process \d+ on far"):
                WorkdirLock(tmp_path, beat_seconds=0.5).__enter__()
        finally:
            living.kill()
            living.wait()
        assert "for a heartbeat" in capsys.readouterr().out
        # Now it stands still.
        with WorkdirLock(tmp_path, beat_seconds=0.2):
            token = json.loads((tmp_path / FILE).read_text())["token"]
            assert token != held["token"]


def test_a_process_number_that_came_again_is_another_process(tmp_path):
    with WorkdirLock(tmp_path, beat_seconds=600.0):
        held = json.loads((tmp_path / FILE).read_text())
        (tmp_path / FILE).write_text(json.dumps(held | {"started": held["started"] - 1}))
        with WorkdirLock(tmp_path):
            pass


def test_a_command_is_repeated_with_its_flags(tmp_path):
    argv = ["main", "--config=configs/mini.py:smoke", "--workdir=x", "--config.rl.steps", "5"]
    command = given_command([*argv, "--noconfig.models.paste_back", "--stage=rl"])
    path = f"{pathlib.Path('configs/mini.py').absolute()}:smoke"
    assert command == Command(path, ("--config.rl.steps=5", "--noconfig.models.paste_back"))
    write_command(tmp_path, command)
    assert read_command(tmp_path) == command
    assert given_command(["main", *command.flags()]) == command
    assert given_command(["main", "--workdir=x"]) is None
    with pytest.raises(ValueError, match=r"there is no run in .*nowhere"):
        read_command(tmp_path / "nowhere")


def test_of_two_flags_for_a_field_the_last_one_counts():
    config = ConfigDict({"a": {"sizes": (1,), "more": None, "text": "x", "on": True}})
    argv = [
        *("main", "--config.a.sizes=(2,)", "--config.a.more=3", "--config.a.on", "--stage=rl"),
        *("--config.a.sizes", "(4,)", "--noconfig.a.on", "--config.a.more=None"),
        "--config.a.text=None",
    ]
    assert last_flags(argv, config) == [
        *("main", "--stage=rl", "--config.a.sizes", "(4,)", "--noconfig.a.on"),
        "--config.a.text=None",
    ]


def test_resume_takes_the_place_of_config(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "onereward_jax.main", f"--workdir={tmp_path}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    flags = ("--config.rl.t2=40", "--config.candidates.num_steps=(2,)")
    write_command(tmp_path, Command(str(ROOT / "configs/mini.py"), flags))
    outcome = run("--resume", "--config.candidates.num_steps=(0,)", "--stage=export")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: config.candidates.num_steps is (0,): a tuple of")
    both = run("--resume", "--config=configs/mini.py")
    assert (both.returncode, both.stderr) == (
        2,
        "error: give either --resume or --config, not both\n",
    )
