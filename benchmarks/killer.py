"""Kills and restarts a run until it completes; see kills.py."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from file_events import FileEvents
from same_runs import differences

from onereward_jax.chain.stage_record import COMPLETE, FILE, read_record
from onereward_jax.common.user_errors import TRY_AGAIN, USER_ERROR, WAITING
from onereward_jax.rehearsal import ROOT, Run, answer, draw_pictures, write_folder

LATER_STAGES = ("embed", "candidates", "annotate", "reward", "rl", "evaluate", "export")
STAGES = {
    "oracle": ("data", "pretrain", *LATER_STAGES),
    "people": ("data", *LATER_STAGES),
    "pretrain": ("pretrain",),
}
FIRST_NUMBER, NUMBERS_APART = 1000, 2000
"""Process ids of a run."""
PATIENCE = 1800.0
"""Timeout in seconds for a start that neither ends nor is killed."""
SURVIVES = 2.0
"""Maximum seconds that the other process keeps running after a kill."""
STARTING_SHARE, STARTING_SECONDS = 0.06, 6.0
"""Share of kills during startup, and the maximum seconds until such a kill."""
ANSWERS = {"TERM": (TRY_AGAIN, "as requested"), "FULL": (USER_ERROR, "error: a disk is full (")}
BALLAST, DISK_BYTES = "ballast", 1 << 30
LAST_PID = pathlib.Path("/proc/sys/kernel/ns_last_pid")
OWN_NUMBERS = "ONEREWARD_KILLS_OWN_NUMBERS"
"""Environment variable that is set if process ids can be chosen."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """When to kill.

    Attributes:
      stage: wait for the start of this stage; "": for the start of the process.
      events: kill after this many file changes, or None.
      seconds: kill after this time, or None.
      victims: indices of the processes to kill.
    """

    stage: str
    events: int | None
    seconds: float | None
    victims: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """The outcome of one start.

    Attributes:
      codes: exit codes.
      stage: in which it was killed, "start" before any; "" if it ended by itself.
      moment: description of when it was killed.
      measured: seconds and file events of each stage it went through.
    """

    codes: list[int]
    stage: str
    moment: str
    measured: dict[str, list[float]]


class Killer:
    """All runs of one benchmark, in `--workdir`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._folder: pathlib.Path = options.workdir
        self._shared: pathlib.Path = options.whole or options.workdir
        self._variant: str = options.world
        self._stages = STAGES[self._variant]
        self._until = time.monotonic() + 60 * options.minutes
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._variant == "people" and not (self._shared / "photographs").exists():
            pictures = draw_pictures(self._shared / "drawn")
            write_folder(pictures, self._shared / "photographs")

    def whole(self) -> dict[str, list[float]]:
        """Makes the uninterrupted run twice; returns seconds and file events of each stage."""
        path = self._shared / "whole.json"
        if not path.exists():
            if read_status(self._shared / "whole" / self._stages[-1]) != COMPLETE:
                self._uninterrupted("whole")
            measured = self._uninterrupted("again")
            if lines := differences(self._shared / "whole", self._shared / "again"):
                raise RuntimeError("\n".join(["two uninterrupted runs differ:", *lines]))
            shutil.rmtree(self._shared / "again")
            path.write_text(json.dumps(measured, indent=1))
        return json.loads(path.read_text())

    def enough(self) -> bool:
        """Whether there were enough kills and every killed run is complete."""
        kills, rounds = self.lines("kills"), self.lines("rounds")
        ended = not kills or len(rounds) >= kills[-1]["round"]
        return self._no_more(kills) and ended

    def _no_more(self, kills: Sequence[object]) -> bool:
        return len(kills) >= self._options.kills or time.monotonic() > self._until

    def round(self, measured: dict[str, list[float]]) -> None:
        """One run, killed `--each` times in every stage; records how its result differs."""
        number, run = len(self.lines("rounds")) + 1, self._run("killed")
        marker = self._folder / "round"
        if not marker.exists() or int(marker.read_text()) != number:
            self._empty(run.workdir)
            marker.write_text(str(number))
        while True:
            kills = self.lines("kills")
            aim = self._aim(number, kills, measured)
            start = self._start(run, aim)
            if start.stage:
                line = {"round": number, "aimed": aim.stage, "victims": aim.victims}
                line |= {name: getattr(start, name) for name in ("stage", "moment", "codes")}
                self._add("kills", line)
                whom = "" if run.processes == 1 else f"{aim.victims} "
                print(f"{len(kills) + 1:4} {start.stage:10} {whom}{start.moment}", flush=True)
            elif start.codes == [WAITING] * run.processes:
                answer_all(run)
            elif any(start.codes):
                raise RuntimeError(f"ended with {start.codes}:\n{run.last_words()}")
            else:
                break
        lines = differences(self._shared / "whole", run.workdir)
        self._add("rounds", {"round": number, "differences": lines})
        print("\n".join([f"run {number}: {'differs' if lines else 'bit-identical'}", *lines]))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The recorded "kills", or the completed "rounds"."""
        path = self._folder / f"{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n") if line]

    def _add(self, name: str, line: dict[str, Any]) -> None:
        with (self._folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _empty(self, workdir: pathlib.Path) -> None:
        """Removes the run; for FULL, mounts a disk for it, with the logs outside."""
        if self._options.signal == "FULL":
            subprocess.run(["umount", workdir], capture_output=True, check=False)
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir()
        if self._options.signal == "FULL":
            mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", workdir]
            subprocess.run(mount, check=True)
            logs = self._folder / "processes"
            logs.mkdir(exist_ok=True)
            (workdir / "processes").symlink_to(logs)

    def _aim(
        self, number: int, kills: Sequence[dict[str, Any]], measured: dict[str, list[float]]
    ) -> Aim | None:
        """The next kill: in the first incomplete stage with fewer than `--each` kills."""
        if self._no_more(kills):
            return None
        for stage in self._stages[self._first_open() :]:
            before = sum(one["round"] == number and one["aimed"] == stage for one in kills)
            if before < self._options.each:
                break
        else:
            return None
        draw = random.Random(f"{self._options.seed} {len(kills)}")
        seconds, events = measured[stage]
        processes = range(self._options.processes)
        victims = draw.choice([*((one,) for one in processes), tuple(processes)])
        kind = draw.random()
        if kind < STARTING_SHARE:
            return Aim("", None, draw.uniform(0.0, STARTING_SECONDS), victims)
        # Biased to early times: a resumed stage is shorter than the measured one.
        share = draw.random() * draw.random()
        if kind < 0.5:
            return Aim(stage, None, share * seconds, victims)
        return Aim(stage, 1 + int(share * events), None, victims)

    def _first_open(self) -> int:
        """The first incomplete stage of the killed run."""
        for number, stage in enumerate(self._stages):
            if read_status(self._folder / "killed" / stage) != COMPLETE:
                return number
        return len(self._stages)

    def _start(self, run: Run, aim: Aim | None) -> Start:
        """Starts the run and kills it as aimed, or waits for its end."""
        run.workdir.mkdir(parents=True, exist_ok=True)
        stage, last, measured = "", "before any file", {}
        entered, due, left = 0.0, math.inf, math.inf
        deadline = time.monotonic() + PATIENCE
        with FileEvents(run.workdir) as files:
            processes = run.start()
            if aim is not None and not aim.stage:
                due = time.monotonic() + aim.seconds
            while all(one.poll() is None for one in processes):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"it does not end:\n{end(processes, run)}")
                for path, kind in files.wait(min(0.2, due - time.monotonic())):
                    if path.parts[0] == "processes" or left <= 0:
                        continue
                    last = f"{path} {kind}"
                    if path.name == FILE and kind == "renamed" and path.parts[0] in self._stages:
                        if path.parts[0] not in measured and aim and aim.stage == path.parts[0]:
                            due = time.monotonic() + (aim.seconds or math.inf)
                            left = aim.events or math.inf
                        if path.parts[0] not in measured:
                            stage, entered = path.parts[0], time.monotonic()
                            measured[stage] = [0.0, 0]
                    if stage:
                        measured[stage] = [time.monotonic() - entered, measured[stage][1] + 1]
                    left -= 1
                if left <= 0 or time.monotonic() >= due:
                    codes = self._kill(processes, aim.victims, run)
                    where = f"at {last}" if left <= 0 else f"{aim.seconds:.1f} s in, after {last}"
                    return Start(codes, stage or "start", where, measured)
            return Start([one.wait(PATIENCE) for one in processes], "", "", measured)

    def _kill(
        self, processes: list[subprocess.Popen], victims: Sequence[int], run: Run
    ) -> list[int]:
        """Sends the signal to the victims and waits until all processes have ended."""
        before, asked = len(said_by_first(run)), time.monotonic()
        if self._options.signal == "FULL":
            fill(run.workdir / BALLAST)
        else:
            for victim in victims:
                processes[victim].send_signal(signal.Signals[f"SIG{self._options.signal}"])
        if self._options.signal == "KILL":
            if len(victims) < len(processes):
                time.sleep(random.uniform(0.0, SURVIVES))
            for process in processes:
                process.kill()
            return [process.wait() for process in processes]
        codes = [process.wait(PATIENCE) for process in processes]
        print(f"     answered after {time.monotonic() - asked:.1f} s", flush=True)
        (run.workdir / BALLAST).unlink(missing_ok=True)
        code, sentence = ANSWERS[self._options.signal]
        said = said_by_first(run)[before:]
        # Or it had come to its end.
        if not (set(codes) == {code} and sentence in said or set(codes) in ({0}, {WAITING})):
            raise RuntimeError(f"{self._options.signal} was answered with {codes}:\n{said}")
        return codes

    def _uninterrupted(self, name: str) -> dict[str, list[float]]:
        run, measured = self._run(name), {}
        shutil.rmtree(run.workdir, ignore_errors=True)
        while True:
            start = self._start(run, None)
            for stage, found in start.measured.items():
                measured[stage] = max(found, measured.get(stage, found))
            if not any(start.codes):
                total = sum(seconds for seconds, _ in measured.values())
                print(f"{name}: uninterrupted, {total:.0f} s in {len(measured)} stages", flush=True)
                return measured
            if start.codes != [WAITING] * run.processes:
                raise RuntimeError(f"ended with {start.codes}:\n{run.last_words()}")
            answer_all(run)

    def _run(self, name: str) -> Run:
        processes = self._options.processes
        flags = [
            f"--config={ROOT}/benchmarks/kills_config.py:{self._variant}",
            f"--config.mesh.data={max(2, processes)}",
            "--config.mesh.fsdp=1",
            "--config.mesh.tensor=1",
            "--host_timeout=60",
        ]
        if self._variant == "people":
            flags.append(f"--config.data.path={self._shared / 'photographs'}")
        devices = 2 if processes == 1 else 1
        return Run(self._folder / name, tuple(flags), processes, devices, before_each=same_number)


def read_status(folder: pathlib.Path) -> str:
    """The status of a stage; "" before its start."""
    record = read_record(folder)
    return record.status if record is not None else ""


def answer_all(run: Run) -> None:
    """Writes people's answers, unless they exist."""
    if '"best"' not in run.questions.read_text(encoding="utf-8"):
        answer(run.questions, "anna")


def said_by_first(run: Run) -> str:
    """The log of process 0, over all starts."""
    return (run.workdir / "processes" / "0.txt").read_text(errors="replace")


def fill(ballast: pathlib.Path) -> None:
    """Fills the disk."""
    size = 1 << 20
    with ballast.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


def same_number(index: int) -> None:
    """Gives the process that is started next the same process id as before."""
    if OWN_NUMBERS in os.environ:
        LAST_PID.write_text(str(FIRST_NUMBER + NUMBERS_APART * index - 1))


def end(processes: Sequence[subprocess.Popen], run: Run) -> str:
    """Kills all processes; returns the end of their logs."""
    for process in processes:
        process.kill()
        process.wait()
    return run.last_words()
