"""Train a mask-guided image editor with OneReward: one config, one workdir, a chain of stages.

    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini
    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini --stage=rl
    python -m onereward_jax.main --workdir=runs/mini --resume

Any field of the config can be set from the command line as --config.<section>.<field>=<value>.
"""

from __future__ import annotations

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
from onereward_jax.parallel.preemption import hearing_signals
from onereward_jax.parallel.rendezvous import PeerLost
from onereward_jax.stages import STAGES
from onereward_jax.stages.logging_setup import prepare_logging
from onereward_jax.stages.registry import stages_of
from onereward_jax.training.nonfinite_steps import TooManyRefusedSteps

_STAGE_HELP = (
    "Run this stage alone; the stages it reads must be complete. Left out, the stages named in "
    "config.stages run in this order, except those that are complete and unchanged:\n"
    + "\n".join(f"  {stage.name:10} {stage.summary}" for stage in STAGES)
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with :variant where it has some."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "The folder of the run, made when missing; gs://bucket/path is one in a bucket. All hosts see "
    "it. Of a bucket each host keeps copies of what it reads and writes, in the folder that the "
    "variable ONEREWARD_COPIES names, by default ~/.cache/onereward_jax/copies.",
)
flags.DEFINE_bool(
    "resume",
    False,
    "In place of --config: the config file and the --config.... flags that the run in --workdir "
    "was started with. Flags given beside it come on top.",
)
_STAGE = flags.DEFINE_string("stage", None, _STAGE_HELP)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes, one a host, make this run, all started with the same command. They find "
    "each other by Cloud TPU's, GKE's or Slurm's own means, or by the variables "
    "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or by the next three flags.",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
_PROCESS_COUNT = flags.DEFINE_integer("process_count", None, "How many processes there are.")
_PROCESS_INDEX = flags.DEFINE_integer("process_index", None, "Which one this is, from 0.")
_HOST_TIMEOUT = flags.DEFINE_float(
    "host_timeout",
    distributed.SILENCE_SECONDS,
    "Seconds after which a silent process is taken for dead, and all others are ended; at the "
    f"start they wait {distributed.START_FACTOR} times as long for each other.",
    lower_bound=1.0,
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")


def main(argv: Sequence[str]) -> None:
    """Run the chain and print its closing table; errors of the user end in one sentence."""
    del argv
    with distributed.shutdown_together(orderly=(TRY_AGAIN,), silence=_HOST_TIMEOUT.value):
        _run()


def _run() -> None:
    try:
        if _CONFIG.value is None or not _WORKDIR.value:
            raise ValueError(
                "--config and --workdir are needed, or --workdir and --resume; --help explains them"
            )
        config = _CONFIG.value
        for part in ("stages", "mesh"):
            if part not in config:
                raise ValueError(f"config.{part} is missing: copy it from configs/mini.py")
        config, stages = stages_of(config)
        set_cpu_threads()
        _join()
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
        if told := full_disk_message(error):
            exit_with(
                OSError(f"a disk is full ({told}): the same command goes on once there is room")
            )
        expected = (ValueError, OSError, ModuleNotFoundError, TooManyRefusedSteps)
        if not (isinstance(error, expected) and is_user_error(error)):
            raise
        exit_with(error)
    if is_writer():
        print_outcomes(outcomes, _WORKDIR.value)


def _join() -> None:
    """Meets the other processes, where there are to be any."""
    given = (_COORDINATOR.value, _PROCESS_COUNT.value, _PROCESS_INDEX.value)
    if _DISTRIBUTED.value or any(value is not None for value in given):
        distributed.initialize(distributed.find_cluster_config(*given), _HOST_TIMEOUT.value)


def cli() -> None:
    """The command `onereward`."""
    app.run(main, flags_parser=lambda argv: parse_flags(argv, __doc__, "workdir"))


if __name__ == "__main__":
    cli()
