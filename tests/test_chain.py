"""The whole chain on the mini world, from the command line, and a reinforcement run that is killed.

Few samples and steps (`configs/mini.py:smoke`), but every stage, model and file is the real one.
What is quick and kills trainings is in test_real_run.py.
"""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from processes import with_devices
from safetensors.numpy import load_file

import onereward_jax
from onereward_jax.chain.stage_record import COMPLETE, STARTED, read_record
from onereward_jax.common.user_errors import TRY_AGAIN
from onereward_jax.tasks import TASKS
from onereward_jax.training.metrics_jsonl import read_metrics

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
STEPS, CHECKPOINT_EVERY = 12, 3
PATIENCE = 600
"""Seconds until the first checkpoint of a slow machine."""


def command(workdir, *arguments):
    return [
        sys.executable,
        *("-m", "onereward_jax.main", "--config=configs/mini.py:smoke", f"--workdir={workdir}"),
        f"--config.rl.steps={STEPS}",
        f"--config.rl.checkpoint_every={CHECKPOINT_EVERY}",
        *arguments,
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, as on a workstation; and runs share what they compiled."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return with_devices(1) | cache | always


def run(environment, workdir, *arguments):
    outcome = subprocess.run(
        command(workdir, *arguments),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def start(environment, workdir):
    return subprocess.Popen(
        command(workdir, "--stage=rl"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(workdir / "errors.txt").open("w"),
    )


def wait_for_checkpoint(process, workdir):
    started = time.monotonic()
    while not (workdir / "rl" / "checkpoints" / str(CHECKPOINT_EVERY)).is_dir():
        assert process.poll() is None and time.monotonic() - started < PATIENCE
        time.sleep(0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environment):
    """The folder of a run that nobody interrupted, and what it printed."""
    workdir = tmp_path_factory.mktemp("chain") / "run"
    return workdir, run(environment, workdir)


def test_the_chain_ends_with_a_report_and_a_table(finished):
    workdir, printed = finished
    for stage in ("data", "embed", "candidates", "annotate", "reward", "rl", "evaluate", "export"):
        assert read_record(workdir / stage).status == COMPLETE
        assert stage in printed
    summary = json.loads((workdir / "evaluate" / "report" / "summary.json").read_text())
    for rater in ("by the oracle", "by the judge it was trained against"):
        assert {sum(found[kind] for kind in ("good", "same", "bad"))
                for found in summary["gsb"][rater].values()} == {8}  # fmt: skip
        assert set(summary["gsb"][rater]) == {task.value for task in TASKS}
    on_policy = summary["on_policy"]["the judge it was trained against, by the oracle"]
    assert 0 <= on_policy["overall"]["accuracy"] <= 1 and on_policy["overall"]["pairs"]
    assert "judge_right" in printed
    page = (workdir / "evaluate" / "report" / "index.html").read_text()
    assert page.count("<svg") >= 2 and "data:image/png" in page


@pytest.mark.slow
def test_killed_and_started_again_equals_uninterrupted(finished, environment, tmp_path):
    """kill -9 between checkpoints; then the same weights, bit for bit, and the same log."""
    whole, workdir = finished[0], tmp_path / "run"
    shutil.copytree(whole, workdir, ignore=shutil.ignore_patterns("rl", "evaluate", "export"))
    process = start(environment, workdir)
    wait_for_checkpoint(process, workdir)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert read_record(workdir / "rl").status == STARTED
    assert not (workdir / "rl" / "policy").exists()

    run(environment, workdir, "--stage=rl")
    for weights in ("policy", "ema"):
        file = f"rl/{weights}/diffusion_pytorch_model.safetensors"
        ours, theirs = load_file(workdir / file), load_file(whole / file)
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)

    def rewards(folder):
        rows = read_metrics(folder / "rl" / "metrics.jsonl")
        return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]

    assert rewards(workdir) == rewards(whole)
    assert len(rewards(whole)) == STEPS


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_says_how_to_go_on(finished, environment, tmp_path):
    """SIGTERM, as from a preempted machine: the stage is not taken for finished."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir, ignore=shutil.ignore_patterns("rl", "evaluate", "export"))
    process = start(environment, workdir)
    wait_for_checkpoint(process, workdir)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == TRY_AGAIN
    errors = (workdir / "errors.txt").read_text()
    assert "as requested; run the same command to resume" in errors
    assert read_record(workdir / "rl").status == STARTED
    assert not (workdir / "rl" / "policy").exists()


def test_a_second_start_has_nothing_to_do(finished, environment):
    workdir, _ = finished
    before = (workdir / "rl" / "stage.json").stat().st_mtime_ns
    run(environment, workdir)
    assert (workdir / "rl" / "stage.json").stat().st_mtime_ns == before
