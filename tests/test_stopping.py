"""SIGTERM and Ctrl-C in one process; of several processes in test_hosts.py.

`benchmarks/kills.py --signal=TERM` sends it in every stage of a run.
"""

import signal
import subprocess
import sys
import time

import pytest
from processes import ROOT

from onereward_jax.common.mistakes import TRY_AGAIN


def started(scenario):
    """A process that is at work."""
    process = subprocess.Popen(
        [sys.executable, "tests/stop_program.py", scenario],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.stdout.readline() != "at work\n":
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_stops_between_two_units_and_says_where(number):
    process = started("units")
    process.send_signal(number)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == TRY_AGAIN
    done = 1 + int(said.split()[-1])  # the last unit is kept, and no other is begun
    sentence = f"embed: stopped at {done} of 600 prompts, as asked; the same command goes on from"
    assert sentence in errors and "Traceback" not in errors
    assert "lock released" not in said  # by the thread: the main thread does it on its way out


def test_one_long_piece_ends_at_once():
    process = started("one long piece")
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == TRY_AGAIN and said == "lock released\n"
    assert errors.strip() == (
        "export: stopped as asked; the same command goes on from what it has finished"
    )


def test_asked_twice_a_loop_ends_at_once():
    process = started("long units")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None  # it waits for the unit
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == TRY_AGAIN
    assert "stopped at once, as asked twice" in errors
