"""SIGTERM and Ctrl-C in one process and in a stage; of several processes in test_hosts.py.

`benchmarks/kills.py --signal=TERM` sends it in every stage of a run.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import ROOT
from test_run_chain import CHAIN, EVERYTHING, config, rules, run  # noqa: F401

from onereward_jax.chain import StageContext
from onereward_jax.chain.stage_record import STARTED, read_record
from onereward_jax.common.user_errors import TRY_AGAIN, Stopped
from onereward_jax.parallel.preemption import hearing_signals, stop_points

PATIENCE = 60
"""Seconds for what takes one on a machine with nothing else to do."""


@contextlib.contextmanager
def started(scenario):
    """A process that is at work; it does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "tests/stop_program.py", scenario],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while process.stdout.readline() != "at work\n":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_stops_between_two_units_and_says_where(number):
    with started("units") as process:
        process.send_signal(number)
        said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == TRY_AGAIN
    done = 1 + int(said.split()[-1])  # the last unit is kept, and no other is begun
    sentence = f"embed: stopped at {done} of 600 prompts, as requested; run the same command"
    assert sentence in errors and "Traceback" not in errors
    assert "lock released" not in said  # by the thread: the main thread does it on its way out


def test_one_long_piece_ends_at_once():
    with started("one long piece") as process:
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == TRY_AGAIN and said == "lock released\n"
    assert errors.strip() == "export: stopped as requested; run the same command to resume"


def test_asked_twice_a_loop_ends_at_once():
    with started("long units") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None  # it waits for the unit
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == TRY_AGAIN
    assert "stopped at once after a second signal" in errors


def test_a_stage_that_is_asked_to_stop_keeps_what_it_has_and_goes_on(config, rules, tmp_path):  # noqa: F811
    """SIGTERM in a stage that does not train: as CHAIN's `double`, with a stop point."""

    def stoppable(context: StageContext) -> None:
        numbers = (context.output("count") / "numbers.txt").read_text().split()
        with stop_points("double") as stop:
            for number in numbers:
                if not (context.folder / number).exists():
                    (context.folder / number).write_text(str(2 * int(number)))
                    if number == "1":
                        os.kill(os.getpid(), signal.SIGTERM)
                stop.if_asked(f"at {number}")

    chain = (CHAIN[0], dataclasses.replace(CHAIN[1], run=stoppable), CHAIN[2])
    with hearing_signals(), pytest.raises(Stopped, match="^double: stopped at 1, as requested"):
        run(config, tmp_path, chain=chain)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    record, kept = read_record(tmp_path / "double"), tmp_path / "double" / "1"
    assert record.status == STARTED and not (tmp_path / "double" / "2").exists()
    made = kept.stat().st_mtime_ns
    with hearing_signals():
        assert run(config, tmp_path, chain=chain) == EVERYTHING | {"count": False}
    assert kept.stat().st_mtime_ns == made
    assert read_record(tmp_path / "total").results == {"total": 12}
