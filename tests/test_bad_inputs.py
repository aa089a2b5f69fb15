"""A few of the mutations of benchmarks/bad_inputs.py; seeds of 64 bits."""

import subprocess
import sys

import jax
from processes import ROOT, with_devices

from onereward_jax.common.rng import key_of

FAMILIES = "weights,adapters,pictures,rows,row_files,records"
"""All but those whose inputs take long."""


def test_odd_inputs_are_read_right_or_refused_in_a_sentence():
    """Silently wrong, tracebacks, crashes, and good inputs refused: none."""
    outcome = subprocess.run(
        [
            *(sys.executable, "benchmarks/bad_inputs.py", f"--kinds={FAMILIES}"),
            *("--each=2", "--workers=1"),
        ],
        cwd=ROOT,
        env=with_devices(1) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    total = outcome.stdout.splitlines()[-1]
    refused, right = (int(cell) for cell in total.split(" | ")[2:4])
    assert refused + right >= 90 and right > 12, total


def test_seeds_of_64_bits_have_keys_of_their_own():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    keys = [jax.random.key_data(key_of(seed)).tolist() for seed in seeds]
    assert len({tuple(key) for key in keys}) == len(seeds)
    assert keys[:4] == [jax.random.key_data(jax.random.key(seed)).tolist() for seed in seeds[:4]]
