"""The stage `curate` as a command: killed, stopped, resumed, to the files of an unbroken run."""

import signal
import subprocess
import sys
import time

import pytest
from curate_pictures import make_clip, make_pictures
from test_curate import DUPLICATES, ROOT, files_of

pytestmark = pytest.mark.slow

TRY_AGAIN = 75


def start(world, workdir):
    """--stage=curate on four batches of pictures."""
    fields = {
        "pictures": world / "pictures",
        "clip": world / "clip",
        "clusters": 4,
        "batch_size": 8,
        "duplicates": DUPLICATES,
    }
    flags = [f"--config.curate.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "onereward_jax.main", "--config=configs/mini.py:folder"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", "--stage=curate", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def saved(workdir):
    """The finished batches of a run."""
    return {path.name for path in workdir.glob("curate/embeddings/0*.npz")}


def interrupt(world, workdir, number):
    """Sends the signal once a further batch is saved; returns the exit code and what was said."""
    before, process = saved(workdir), start(world, workdir)
    while process.poll() is None and not saved(workdir) - before:
        time.sleep(0.001)
    process.send_signal(number)
    said, errors = process.communicate()
    return process.returncode, said + errors


def test_a_killed_and_stopped_command_resumes_to_the_same_files(tmp_path):
    make_pictures(tmp_path / "pictures")
    make_clip(tmp_path / "clip", tmp_path / "pictures")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert start(tmp_path, unbroken).wait() == 0

    assert interrupt(tmp_path, broken, signal.SIGKILL)[0] == -signal.SIGKILL
    assert saved(broken) and not (broken / "curate" / "metadata.jsonl").exists()
    code, said = interrupt(tmp_path, broken, signal.SIGTERM)
    if code:  # it may have ended before the signal came
        assert code == TRY_AGAIN and "run the same command to resume" in said
    assert start(tmp_path, broken).wait() == 0
    found, wanted = files_of(broken / "curate"), files_of(unbroken / "curate")
    drafts = {name for name in found if name.rpartition("/")[2].startswith(".")}
    assert {name: found[name] for name in found.keys() - drafts} == wanted
