"""Train a mask-guided image editor with OneReward: one config, one workdir, a chain of stages.

    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini
    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini --stage=rl
    python -m onereward_jax.main --workdir=runs/mini --resume

Any field of the config can be set from the command line as --config.<section>.<field>=<value>.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from onereward_jax.chain import run_chain
from onereward_jax.chain.closing_table import print_outcomes
from onereward_jax.chain.command_flags import parse_flags
from onereward_jax.chain.saved_command import given_command
from onereward_jax.common.user_errors import (
    TRY_AGAIN,
    WAITING,
    Stopped,
    Unreachable,
    WaitingForPeople,
    exit_with,
    full_disk_message,
    is_user_error,
    log_full_disk_once,
)
from onereward_jax.parallel import distributed, is_writer, make_mesh
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.parallel.distributed import gather_on_writer
from onereward_jax.parallel.preemption import hearing_signals
from onereward_jax.parallel.startup_check import PeerLost
from onereward_jax.stages import STAGES
from onereward_jax.stages.own_stages import stages_of
from onereward_jax.stages.training_logs import prepare_logging
from onereward_jax.task_file import VARIABLE
from onereward_jax.tasks import OWN
from onereward_jax.training.nonfinite_steps import TooManyRefusedSteps

_STAGE_HELP = (
    "Run only this stage; the stages it reads must be complete. By default, the stages named in "
    "config.stages run in this order, except those that are complete and unchanged:\n"
    + "\n".join(f"  {stage.name:10} {stage.summary}" for stage in STAGES)
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, optionally with :variant."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "The folder of the run, created if missing, local or gs://bucket/path; shared by all hosts. "
    "Each host caches what it reads from and writes to a bucket, in the folder named by the "
    "variable ONEREWARD_COPIES, by default ~/.cache/onereward_jax/copies.",
)
flags.DEFINE_bool(
    "resume",
    False,
    "Instead of --config: use the config file and the --config.... flags of the run in --workdir. "
    "Other flags override them.",
)
_STAGE = flags.DEFINE_string("stage", None, _STAGE_HELP)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Multi-process run: one process per host, all started with the same command. Processes are "
    "detected on Cloud TPU, GKE and Slurm, or set by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES "
    "and JAX_PROCESS_ID, or by the next three flags.",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
_PROCESS_COUNT = flags.DEFINE_integer("process_count", None, "Number of processes.")
_PROCESS_INDEX = flags.DEFINE_integer("process_index", None, "Index of this process, from 0.")
_HOST_TIMEOUT = flags.DEFINE_float(
    "host_timeout",
    distributed.SILENCE_SECONDS,
    "Heartbeat timeout: seconds after which a silent process counts as dead, and all others end. "
    f"At the start, processes wait {distributed.START_FACTOR} times as long for each other.",
    lower_bound=1.0,
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")


def main(argv: Sequence[str]) -> None:
    """Runs the chain and prints its summary table; user errors are printed as one line."""
    del argv
    with distributed.shutdown_together(orderly=(TRY_AGAIN,), silence=_HOST_TIMEOUT.value):
        _run()


def _run() -> None:
    try:
        if _CONFIG.value is None or not _WORKDIR.value:
            raise ValueError("--workdir and either --config or --resume are required, see --help")
        config = _CONFIG.value
        for part in ("stages", "mesh"):
            if part not in config:
                raise ValueError(f"config.{part} is missing: copy it from configs/mini.py")
        config, stages = stages_of(config)
        set_cpu_threads()
        _join()
        check_same_tasks()
        prepare_logging(config)
        mesh = make_mesh(**config.mesh)
        log_full_disk_once()
        with hearing_signals():
            outcomes = run_chain(
                config,
                _WORKDIR.value,
                mesh,
                stages,
                only=_STAGE.value,
                command=given_command(sys.argv),
            )
    except KeyboardInterrupt:  # before `hearing_signals`
        print("stopped before the first stage, as asked", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except Stopped as stop:
        if is_writer():
            print(stop, file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except WaitingForPeople as waiting:
        if is_writer():
            print(waiting)
        sys.exit(WAITING)
    except PeerLost as lost:
        print(f"error: {lost}", file=sys.stderr)
        sys.exit(lost.code)
    except Unreachable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except Exception as error:
        if _TRACEBACK.value:
            raise
        if message := full_disk_message(error):
            exit_with(
                OSError(f"a disk is full ({message}): free some space, then run the same command")
            )
        expected = (ValueError, OSError, ModuleNotFoundError, TooManyRefusedSteps)
        if not (isinstance(error, expected) and is_user_error(error)):
            raise
        exit_with(error)
    if is_writer():
        print_outcomes(outcomes, _WORKDIR.value)


def _join() -> None:
    """Joins the other processes of a multi-process run."""
    given = (_COORDINATOR.value, _PROCESS_COUNT.value, _PROCESS_INDEX.value)
    if _DISTRIBUTED.value or any(value is not None for value in given):
        distributed.initialize(distributed.find_cluster_config(*given), _HOST_TIMEOUT.value)


def check_same_tasks() -> None:
    """Raises ValueError, on process 0, where another process has other tasks of its own."""
    for index, found in enumerate(gather_on_writer(OWN.version)):
        if found != OWN.version:
            raise ValueError(f"process {index} has other tasks: {VARIABLE} is another file there")


COMMANDS = {
    "people": "people",
    "preferences": "preferences",
    "convert": "convert_weights",
    "serve": "serve_editor",
}
"""`onereward people ...` is `python -m onereward_jax.people ...`."""


def cli() -> None:
    """The command `onereward`."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        importlib.import_module(f"onereward_jax.{COMMANDS[sys.argv[1]]}").main(sys.argv[2:])
        return
    app.run(main, flags_parser=lambda argv: parse_flags(argv, __doc__, "workdir"))


if __name__ == "__main__":
    cli()
