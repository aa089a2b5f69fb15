"""Kills a run at random moments, resumes it, and checks that the result is bit-identical.

    python benchmarks/kills.py --workdir=/tmp/kills [--kills=100] [--processes=1]

A small run (benchmarks/kills_config.py) first runs twice without interruption, which must give the
same files. Then it runs repeatedly and is killed (SIGKILL) a few times in each stage: half of the
time after a random number of seconds in the stage, half of the time at a random file change below
the work folder, which mostly hits a save. After each kill the same command resumes the run. With
--processes=2 one or both processes are killed; a survivor keeps running for a moment and is then
killed too, as by a job manager. The result is compared with the uninterrupted run file by file:
weights of judge and policy, records, candidates, answers, metrics.

As root on Linux, restarts reuse the same process ids, as in a container. --signal=TERM sends
SIGTERM instead and expects code 75 and one sentence. --signal=FULL (as root) fills the disk and
expects code 2 and one sentence, and an identical result after space is freed. --chains=4 makes four
such runs in parallel; after --minutes there are no new kills. This program itself can be resumed.
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
    """Restarts this program in its own PID namespace, if possible, to control process ids."""
    if OWN_NUMBERS in os.environ or os.geteuid() != 0 or not shutil.which("unshare"):
        return
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[OWN_NUMBERS] = "yes"
        os.execvp("unshare", [*command, sys.executable, *sys.argv])


def run_chains(options: argparse.Namespace) -> list[Killer]:
    """Runs several copies of this program in parallel, each with a share of the kills."""
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
    """Prints how many kills left the result identical; returns the exit code."""
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
        f"{harmless} of {total} {NAMES[options.signal]}: resumed with bit-identical results, "
        f"in {rounds} runs of {options.processes} process(es); {minutes:.0f} min"
    )
    return int(harmless < total or not total)


def main() -> int:
    """Prints each kill and, at the end, how many left the result identical."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="its own")
    parser.add_argument("--kills", type=int, default=100, help="how many in total, over restarts")
    parser.add_argument("--each", type=int, default=4, help="in each stage of a run")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2), help="of each run")
    parser.add_argument("--world", choices=tuple(STAGES), help="default: oracle for one process")
    parser.add_argument("--seed", type=int, default=0, help="of the times and processes of kills")
    parser.add_argument("--signal", default="KILL", choices=tuple(NAMES), help="FULL: disk full")
    parser.add_argument("--chains", type=int, default=1, help="parallel runs")
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
            same = "the same" if OWN_NUMBERS in os.environ else "new"
            print(f"{options.workdir.name}: restarts have {same} process ids", flush=True)
            killers = [killer]
            while not killer.enough():
                killer.round(measured)
    except RuntimeError as error:
        print(error)
        return 1
    return tell_result(killers, options, (time.monotonic() - started) / 60)


if __name__ == "__main__":
    sys.exit(main())
