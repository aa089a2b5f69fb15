"""The whole chain on the mini world, from the command line, and a reinforcement run that is killed.

Few samples and steps (`configs/mini.py:smoke`), but every stage, model and file is the real one.
What is quick and kills trainings is in test_real_run.py.
"""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
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
        "--config.mini.margin=0.002",  # after a few steps, the policy is near its base
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


def wait_for_checkpoint(process, workdir, stage="rl"):
    started = time.monotonic()
    while not (workdir / stage / "checkpoints" / str(CHECKPOINT_EVERY)).is_dir():
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


@pytest.fixture
def execute(environment, tmp_path, monkeypatch):
    """execute(config, workdir, fields): what each cell of examples/first_run.ipynb has put out."""
    places = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    for name, place in places.items():
        monkeypatch.setenv(name, place)

    def execute(config, workdir, fields):
        notebook = nbformat.read(ROOT / "examples/first_run.ipynb", as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        settings = next(cell for cell in notebook.cells if "WORKDIR =" in cell.source)
        settings.source += f"\nCONFIG, WORKDIR, FIELDS = {config!r}, {str(workdir)!r}, {fields!r}"
        where = {"metadata": {"path": str(tmp_path)}}
        client = NotebookClient(notebook, timeout=PATIENCE, resources=where)
        try:
            client.execute(env=environment | places)
        except CellExecutionError as error:
            return str(error)
        return "".join(
            out.get("text", "") or "".join(out.data) for cell in notebook.cells
            for out in cell.get("outputs", ())
        )  # fmt: skip

    return execute


def test_the_notebook_makes_the_run_of_the_command(finished, execute, tmp_path):
    """From its first cell to its last; the same models, bit for bit."""
    fields = {"rl.steps": STEPS, "rl.checkpoint_every": CHECKPOINT_EVERY, "mini.margin": 0.002}
    workdir = tmp_path / "run"
    told = execute("configs/mini.py:smoke", workdir, fields)
    for stage in ("data", "embed", "candidates", "annotate", "reward", "rl", "evaluate", "export"):
        assert read_record(workdir / stage).identity == read_record(finished[0] / stage).identity
    for file in ("reward/judge/model.safetensors", "rl/ema/diffusion_pytorch_model.safetensors"):
        ours, theirs = load_file(workdir / file), load_file(finished[0] / file)
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert told.count("image/png") == 6, told
    assert "questions about training triplets have a best and a worst" in told
    assert "by the oracle: removal: " in told
    assert (workdir / "evaluate/report/index.html").as_uri() in told
    assert re.search(r'P\("Yes"\) that the edit is better: [01].\d\d; that', told)


TWO = (
    "--config.rounds=2",
    "--config.later_rounds.train=8",
    "--config.later_rounds.share=0.9",
    "--config.later_rounds.rl_steps=6",
)


@pytest.fixture(scope="module")
def two_rounds(finished, environment, tmp_path_factory):
    """The same run with a second round, and what it printed."""
    workdir = tmp_path_factory.mktemp("rounds") / "run"
    shutil.copytree(finished[0], workdir)
    return workdir, run(environment, workdir, *TWO)


def test_a_second_round_goes_on_from_the_first(finished, two_rounds):
    """Its candidates are of both editors, its judge learns from all pairs, RL from the policy."""
    (first, _), (workdir, printed) = finished, two_rounds
    for stage in ("data", "embed", "candidates", "annotate", "reward", "rl"):
        assert read_record(workdir / stage) == read_record(first / stage)
    made = [path.name for path in (workdir / "candidates-2").glob("pictures/*/*.png")]
    by_policy = sum(name.endswith("-policy.png") for name in made)
    assert by_policy == len(made) / 2
    pairs, earlier = (
        (folder / "pairs.jsonl").read_text().splitlines()
        for folder in (workdir / "reward-2", first / "reward")
    )
    assert pairs[: len(earlier)] == earlier and len(pairs) > len(earlier)
    assert read_record(workdir / "reward-2").results["repeated_pairs"] > len(pairs) - len(earlier)
    found = json.loads((workdir / "reward-2" / "accuracy.json").read_text())["on_policy"]
    assert found and {row["folder"] for row in found} == {"candidates-2"}
    rows = read_metrics(workdir / "rl-2" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 7)]
    # The reference is the base still: at its first step the policy is as far as it was.
    last = read_metrics(workdir / "rl" / "metrics.jsonl")[-1]["reference_distance"]
    assert rows[0]["reference_distance"] == pytest.approx(last, rel=0.2)
    summary = json.loads((workdir / "evaluate" / "report" / "summary.json").read_text())
    assert [row["round"] for row in summary["rounds"]] == [1, 2]
    assert summary["rounds"][1]["on_policy"]["pairs"] == sum(row["pairs"] for row in found)
    assert "reward-2" in printed and "policy_better" in printed


@pytest.mark.slow
def test_a_second_round_that_is_killed_resumes_exactly(two_rounds, environment, tmp_path):
    whole, workdir = two_rounds[0], tmp_path / "run"
    shutil.copytree(whole, workdir)
    for stage in ("rl-2", "evaluate", "export"):
        shutil.rmtree(workdir / stage)
    process = subprocess.Popen(
        command(workdir, *TWO),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(workdir / "errors.txt").open("w"),
    )
    wait_for_checkpoint(process, workdir, "rl-2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_record(workdir / "rl-2").status == STARTED
    run(environment, workdir, *TWO)
    for weights in ("policy", "ema"):
        file = f"rl-2/{weights}/diffusion_pytorch_model.safetensors"
        ours, theirs = load_file(workdir / file), load_file(whole / file)
        assert all((ours[name] == theirs[name]).all() for name in theirs)


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
