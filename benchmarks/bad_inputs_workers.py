"""Runs cases in worker processes, so that a crash or a hang counts instead of ending the run."""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import random
import resource
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from absl import logging
from bad_inputs_case import Case, Outcome, run_case
from bad_inputs_families import family

MEMORY = 4 << 30
"""Bytes of address space that a process may take for its inputs."""

HANG = 60
"""Seconds after which a case counts as hanging."""

CODES = {1: f"no answer within {HANG} seconds"}
"""Exit code of a worker -> what it means; faulthandler exits with 1."""


def run_cases(
    root: Path, families: Sequence[str], seed: int, each: int, only: str, *, workers: int
) -> list[Outcome]:
    """The outcomes of all cases, in their order.

    Args:
      root: an empty folder.
      families: names of families.
      seed: seed of the mutations.
      each: at most so many of a kind; 0: all.
      only: part of the names; "": all.
      workers: number of processes.
    """
    for name in families:
        (root / name).mkdir()
        family(name).prepare(root / name)
    start = functools.partial(_Worker, (root, tuple(families), seed, each, only), workers)
    running = [start(place, place) for place in range(workers)]
    outcomes: dict[int, Outcome] = {}
    while running:
        ready = wait([one.connection for one in running])
        for one in [one for one in running if one.connection in ready]:
            try:
                message = one.connection.recv()
            except EOFError:
                running.remove(one)
                one.process.join()
                if one.begun is not None:
                    index, kind, name = one.begun
                    code = one.process.exitcode
                    detail = CODES.get(code, f"the process ended with code {code}")
                    outcomes[index] = Outcome(kind, name, "crash", 0, detail)
                    running.append(start(one.place, index + workers))
                elif one.process.exitcode:
                    sys.exit("a worker did not start")
                continue
            if isinstance(message, Outcome):
                outcomes[one.begun[0]] = message
                one.begun = None
            else:
                one.begun = message
    return [outcomes[index] for index in sorted(outcomes)]


class _Worker:
    """A running process.

    Attributes:
      place: its number.
      connection: sends (index, kind, name) before and the outcome after each case.
      begun: the case that it runs.
    """

    def __init__(self, chosen: tuple, workers: int, place: int, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.place = place
        self.connection, other = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(chosen, first, workers, other))
        self.process.start()
        other.close()
        self.begun: tuple[int, str, str] | None = None


def _work(chosen: tuple, first: int, step: int, connection: Connection) -> None:
    """Runs every `step`-th case from `first`."""
    logging.set_verbosity(logging.FATAL)
    warnings.simplefilter("ignore")
    cases = list(chosen_cases(*chosen))
    scratch = chosen[0] / f"scratch-{first}-{os.getpid()}"
    _limit_memory()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        if not chosen[-1]:  # with `only`, somebody reads along
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
        for index in range(first, len(cases), step):
            case = cases[index]
            connection.send((index, case.kind, case.name))
            faulthandler.dump_traceback_later(HANG, exit=True)
            scratch.mkdir()
            outcome = run_case(case, scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            faulthandler.cancel_dump_traceback_later()
            connection.send(outcome)
    connection.close()


def chosen_cases(
    root: Path, families: Sequence[str], seed: int, each: int, only: str
) -> Iterator[Case]:
    """The cases to run: the same ones in every process."""
    for name in families:
        kinds: dict[str, list[Case]] = {}
        for case in family(name).cases(root / name, random.Random(f"{seed} {name}")):
            if only in f"{case.kind}/{case.name}":
                kinds.setdefault(case.kind, []).append(case)
        for kind, found in kinds.items():
            if each and len(found) > each:
                found = random.Random(f"{seed} {kind}").sample(found, each)
            yield from found


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
