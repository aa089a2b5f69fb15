"""kill -9 at random moments of a run, until it has ended all the same, and with the same bits.

    python benchmarks/kills.py --workdir=/tmp/kills [--kills=100] [--processes=1]

A small run (benchmarks/kills_config.py) is made twice without interruption, which must give the
same files. Then it is made again and again while it is killed: a few times in each stage, half of
the times so many seconds after the stage went on, the other half at the n-th change of a file below
the work folder, which is mostly in the midst of saving. After each kill the same command is given
again. With --processes=2 the one, the other or both are killed; the survivor works on for a moment
and is then ended, as by a job manager. What a run has left at its end is compared with the
uninterrupted one, file by file: weights of judge and policy, records, candidates, answers, figures.

As root on Linux each restart has the process numbers of the one before, as in a container.
--signal=TERM asks to stop instead, and wants code 75 and a sentence; --signal=FULL (as root) fills
the disk, and wants code 2 and a sentence, and an equal end once there is room. --chains=4 makes
four such runs side by side; after --minutes all are let to come to their end. Killed itself, this
program goes on.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

from killer import OWN_NUMBERS, STAGES, Killer

NAMES = {"KILL": "kills", "TERM": "requests to stop", "FULL": "full disks"}


def in_own_numbers() -> None:
    """Starts this program again where it may choose process numbers, if that is possible here."""
    if OWN_NUMBERS in os.environ or os.geteuid() != 0 or not shutil.which("unshare"):
        return
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[OWN_NUMBERS] = "yes"
        os.execvp("unshare", [*command, sys.executable, *sys.argv])


def run_chains(options: argparse.Namespace) -> list[Killer]:
    """Several of this program, each with a share of the kills; a failing one leaves a run open."""
    killers, programs = [], []
    environment = {name: value for name, value in os.environ.items() if name != OWN_NUMBERS}
    for number in range(options.chains):
        share = argparse.Namespace(**vars(options))
        share.workdir, share.whole = options.workdir / f"chain-{number}", options.workdir
        share.kills = (options.kills + number) // options.chains
        share.seed, share.chains = 1000 * options.seed + number, 1
        flags = [f"--{name}={value}" for name, value in vars(share).items()]
        killers.append(Killer(share))
        programs.append(subprocess.Popen([sys.executable, __file__, *flags], env=environment))
    for program in programs:
        program.wait()
    return killers


def tell_result(killers: list[Killer], options: argparse.Namespace, minutes: float) -> int:
    """Prints how many kills did no harm; returns the exit code."""
    total = harmless = rounds = 0
    stages: collections.Counter[str] = collections.Counter()
    for killer in killers:
        ended = {one["round"]: not one["differences"] for one in killer.lines("rounds")}
        kills = killer.lines("kills")
        total, rounds = total + len(kills), rounds + len(ended)
        harmless += sum(ended.get(one["round"], False) for one in kills)
        stages.update(one["stage"] for one in kills)
    print(", ".join(f"{stage} {count}" for stage, count in stages.items()))
    print(
        f"{harmless} of {total} {NAMES[options.signal]}: the same command went on and ended "
        f"bit-equal, in {rounds} runs of {options.processes} process(es); {minutes:.0f} min"
    )
    return int(harmless < total or not total)


def main() -> int:
    """Prints each kill and, at the end, how many did no harm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="its own")
    parser.add_argument("--kills", type=int, default=100, help="how many, those of before included")
    parser.add_argument("--each", type=int, default=4, help="in each stage of a run")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2), help="of each run")
    parser.add_argument("--world", choices=tuple(STAGES), help="default: oracle for one process")
    parser.add_argument("--seed", type=int, default=0, help="of stages' moments and victims")
    parser.add_argument("--signal", default="KILL", choices=tuple(NAMES), help="what happens")
    parser.add_argument("--chains", type=int, default=1, help="runs side by side")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new kills after them")
    parser.add_argument("--whole", type=pathlib.Path, help="workdir with the uninterrupted run")
    options = parser.parse_args()
    options.workdir = options.workdir.resolve()
    options.world = options.world or ("people" if options.processes > 1 else "oracle")
    in_own_numbers()
    random.seed(options.seed)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles faster
    shared = options.whole or options.workdir
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(shared / "compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    killer, started = Killer(options), time.monotonic()
    try:
        measured = killer.whole()
        if options.chains > 1:
            options.minutes -= (time.monotonic() - started) / 60
            killers = run_chains(options)
        else:
            same = "the same" if OWN_NUMBERS in os.environ else "other"
            print(f"{options.workdir.name}: restarts have {same} process numbers", flush=True)
            killers = [killer]
            while not killer.enough():
                killer.round(measured)
    except RuntimeError as error:
        print(error)
        return 1
    return tell_result(killers, options, (time.monotonic() - started) / 60)


if __name__ == "__main__":
    sys.exit(main())
