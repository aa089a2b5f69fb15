"""A few of the kills, requests to stop and full disks of benchmarks/kills.py."""

import os
import subprocess
import sys

import pytest
from processes import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("what", "processes"), [("KILL", 1), ("KILL", 2), ("TERM", 2)])
def test_a_run_that_is_interrupted_ends_bit_equal(what, processes, tmp_path):
    """About one interruption in each stage."""
    count = 10 - processes
    outcome = subprocess.run(
        [
            *(sys.executable, "benchmarks/kills.py", f"--workdir={tmp_path}"),
            *(f"--kills={count}", "--each=1", f"--signal={what}", f"--processes={processes}"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"{count} of {count} " in outcome.stdout.splitlines()[-1]
