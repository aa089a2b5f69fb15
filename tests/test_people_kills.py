"""A few of the kills of benchmarks/people_kills.py: no acknowledged answer is lost or doubled."""

import os
import re
import subprocess
import sys

import pytest
from postgresql_server import new_database
from processes import ROOT


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_server_that_is_killed_loses_and_doubles_no_acknowledged_answer(
    database, tmp_path, request
):
    kills = 10 if database == "sqlite" else 3
    url = "" if database == "sqlite" else new_database(request.getfixturevalue("postgresql"))
    outcome = subprocess.run(
        [
            *(sys.executable, "benchmarks/people_kills.py", f"--workdir={tmp_path}"),
            *(f"--kills={kills}", "--seconds=1.5", "--questions=500", f"--database={url}"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    last = outcome.stdout.splitlines()[-1]
    found = re.fullmatch(rf"{kills} kills: (\d+) acknowledged, 0 lost, 0 doubled, .*", last)
    assert found and int(found[1]) > kills, last
