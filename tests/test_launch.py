"""The scripts of launch/: dry runs print what is in launch_golden.txt, and shellcheck is content.

After a change on purpose: GOLDEN=write python -m pytest tests/test_launch.py
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "launch_golden.txt"
SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch")])
PLAIN = {"PATH": os.environ["PATH"], "HOME": "/home/user"}

COMMANDS = """
host.sh cuda /shared/flux --stage=rl
host.sh tpu gs://bucket/runs/flux --config=configs/flux_fill_dev_lora.py
host.sh tpu --install --python=python3.11
local_multiprocess.sh /runs/two --config=configs/mini.py:smoke --devices=4 --stage=rl
tpu_vm.sh create --name=flux --zone=us-east5-a --accelerator-type=v5p-128 --runtime-version=r
tpu_vm.sh create --name=x --accelerator-type=v6e-64 --runtime-version=r --slices=4 --capacity=--spot
tpu_vm.sh status --name=flux --project=mine
tpu_vm.sh install --name=flux --zone=us-east5-a --python=python3.11
tpu_vm.sh run --name=flux --workdir=gs://bucket/flux --stage=rl --config.rl.steps=100
tpu_vm.sh logs --name=flux
tpu_vm.sh stop --name=flux
tpu_vm.sh delete --name=flux --zone=us-east5-a
gke_xpk.sh attach --cluster=pod --storage=runs --bucket=my-bucket
gke_xpk.sh run --cluster=pod --name=x --tpu-type=v5p-128 --workdir=gs://bucket/x
gke_xpk.sh run --cluster=pod --name=x --tpu-type=v5p-128 --storage=runs --workdir=/gs/bucket/x
gke_xpk.sh status --cluster=pod --name=flux
gke_xpk.sh logs --cluster=pod --name=flux
gke_xpk.sh delete --cluster=pod --name=flux
slurm_gpu.sbatch /shared/flux --nodes=8 --partition=h100 --sbatch=--exclusive --stage=rl
slurm_gpu.sbatch gs://bucket/flux --nodes=2
slurm_gpu.sbatch /shared/mini --gpus=0 --tasks=2 --config=configs/mini.py:smoke
slurm_gpu.sbatch /shared/mini --nodes=2 --extras=cuda,mini --config=configs/mini.py
host.sh cpu,wandb /shared/flux
local_multiprocess.sh /runs/two --extras=cpu --config=configs/rehearsal.py
quickstart.sh /runs/mini --config.rl.steps=5
make_mini.sh /runs/made
test.sh tests/test_main.py -n 0
test.sh --fast
docs.sh -E
wheel.sh
rehearse.sh /runs/rehearsal --processes=4 --devices=1
""".strip().splitlines()


def launch(command: str, **environment: str) -> subprocess.CompletedProcess:
    script, *arguments = command.split(" ")
    return subprocess.run(
        ["bash", ROOT / "launch" / script, *arguments],
        env=PLAIN | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_dry_runs_print_the_commands_of_the_golden_file():
    printed = []
    for command in COMMANDS:
        outcome = launch(f"{command} --dry-run")
        assert outcome.returncode == 0, outcome.stderr
        lines = outcome.stdout.replace(str(ROOT), "/repository")
        printed.append(f"$ launch/{command} --dry-run\n{lines}")
    text = "\n".join(printed)
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_an_option_may_be_a_variable():
    given = launch("slurm_gpu.sbatch /shared/flux --nodes=3 --gpus=4 --dry-run")
    assert launch("slurm_gpu.sbatch /shared/flux --dry-run", NODES="3", GPUS="4").stdout == (
        given.stdout
    )


@pytest.mark.parametrize("command", ["host.sh cuda /flux", "local_multiprocess.sh /runs/two"])
def test_resume_stands_in_place_of_the_scripts_config(command):
    plain, resumed = (launch(f"{command} {flag}--dry-run").stdout for flag in ("", "--resume "))
    started = [line for line in resumed.splitlines() if "onereward_jax.main" in line]
    assert "--config=" in plain and started
    assert all("--resume" in line and "--config" not in line for line in started)


def test_the_batch_script_explains_itself():
    outcome = launch("slurm_gpu.sbatch --help")
    assert outcome.returncode == 0 and "launch/slurm_gpu.sbatch" in outcome.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tpu_vm.sh create", "--name=... (or NAME) is needed"),
        ("tpu_vm.sh start --name=flux", "not 'start'"),
        ("tpu_vm.sh run --name=flux", "--workdir=... (or WORKDIR) is needed"),
        ("gke_xpk.sh run --cluster=pod --name", "--name needs a value, e.g. --name=x"),
        ("host.sh gpu /runs", "the first argument must be tpu, cuda or cpu"),
        ("host.sh tpu --stage=rl", "the second argument must be the workdir"),
        ("slurm_gpu.sbatch --nodes=2", "the first argument must be the workdir"),
        ("slurm_gpu.sbatch /runs --gpus=0", "--gpus=0 requires --tasks"),
    ],
)
def test_mistakes_end_in_one_sentence(command, message):
    outcome = launch(f"{command} --dry-run")
    assert outcome.returncode == 2
    assert message in outcome.stderr and outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("host.sh mini {runs}", 10),
        ("host.sh mini {runs} --waiting=0", 0),  # as GKE and Slurm have it
        ("local_multiprocess.sh {runs} --processes=2", 10),
        ("quickstart.sh {runs}", 10),
    ],
)
def test_a_run_that_waits_for_people_is_neither_restarted_nor_called_a_failure(
    tmp_path, command, code
):
    """The interpreter stands in for a run that ends with code 10; installing it succeeds."""
    python, calls = tmp_path / "venv" / "bin" / "python", tmp_path / "calls"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$*" >>{calls}\ncase "$*" in *onereward_jax.main*) exit 10;; esac\n'
    )
    python.chmod(0o755)
    (python.parent / "activate").write_text(f"PATH={python.parent}:$PATH\n")
    outcome = launch(command.format(runs=tmp_path / "runs"), VENV=str(tmp_path / "venv"))
    assert outcome.returncode == code, outcome.stderr
    assert "Waiting for answers from people; nothing has failed" in outcome.stdout
    assert "restart" not in outcome.stderr and "error" not in outcome.stderr
    started = calls.read_text().count("onereward_jax.main")
    assert started == (2 if "multiprocess" in command else 1)


def test_an_environment_of_another_python_is_not_taken_for_the_one_asked_for(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.9\n")
    python.chmod(0o755)
    outcome = launch("test.sh", PYTHON=sys.executable, VENV=str(tmp_path / "venv"))
    ours = "{}.{}".format(*sys.version_info)
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert f"venv has Python 3.9, PYTHON is {ours};" in outcome.stderr
    assert f"VENV=.venv-{ours}" in outcome.stderr


def test_one_environment_serves_all_scripts(tmp_path):
    """Extras that are there are not installed again; with another setup.py they are."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "activate").write_text(f"PATH={folder}/bin:$PATH\n")
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/log\n')
    python.chmod(0o755)

    def installed(*asked):
        (tmp_path / "log").unlink(missing_ok=True)
        calls = "; ".join(f"activate_environment '{extras}'" for extras in asked)
        source = f"source {ROOT}/launch/environment.sh; {calls}"
        subprocess.run(["bash", "-c", source], env=PLAIN | {"VENV": str(folder)}, check=True)
        log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
        return [line.partition(str(ROOT))[2].split()[0] for line in log.splitlines()]

    assert installed("mini,test", "mini", "test", "") == ["[mini,test]"]
    assert installed("mini", "mini,docs", "docs", "mini,test") == ["[mini,docs]"]
    (folder / "installed").write_text("of another setup.py\n,nothing,mini,test,docs\n")
    assert installed("mini", "mini", "mini,test") == ["[mini]", "[mini,test]"]


def test_shellcheck_is_content():
    outcome = subprocess.run(
        ["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout
