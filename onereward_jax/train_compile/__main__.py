"""Flags, then one report.

    python -m onereward_jax.train_compile --config=configs/flux_fill_dev.py --topology=v5p:4x4x4

Exit code 0: the step fits. 1: it does not. 2: the command line or the config is at fault.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from onereward_jax.common.config import check_overrides, load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.jobs import JOBS, make_job
from onereward_jax.train_compile.report import compile_report, print_report
from onereward_jax.train_compile.topology import CHIPS, Topology

DOES_NOT_FIT, USER_ERROR = 1, 2

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with :variant where it has some."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    f"Chips to compile for, as in v5p:4x4x4. Generations: {', '.join(CHIPS)}.",
)
_SLICES = flags.DEFINE_integer("slices", 1, "Slices of that topology; config.mesh.data spans them.")
_STAGE = flags.DEFINE_enum("stage", "rl", list(JOBS), "Whose step to compile.")
_JSON = flags.DEFINE_bool("json", False, "Print the report as JSON.")


def main(argv: Sequence[str]) -> None:
    """Compile and report; errors of the user end in one sentence."""
    del argv
    try:
        for name, value in (("config", _CONFIG.value), ("topology", _TOPOLOGY.value)):
            if value is None:
                raise ValueError(f"--{name} is needed; --help explains it")
        topology = Topology.named(_TOPOLOGY.value, _SLICES.value)
        mesh = make_mesh(**_CONFIG.value.mesh, devices=topology.devices())
        job = make_job(_CONFIG.value, _STAGE.value, mesh)
        report = compile_report(job, _STAGE.value, topology, mesh)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        exit_with(error)
    if _JSON.value:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print_report(report, Console())
    sys.exit(0 if report.fits else DOES_NOT_FIT)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with typos in config fields named."""
    flags.FLAGS.set_default("verbosity", logging.WARNING)
    try:
        for argument in argv[1:]:
            name, _, path = argument.partition("=")
            if name == "--config" and path:
                check_overrides(argv, load_config(path))
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise ValueError(f"stray argument {rest[1]!r}: flags look like --name=value")
        return rest
    except (flags.Error, ValueError) as error:
        exit_with(error)


def exit_with(error: Exception) -> None:
    """One sentence and the exit code of a user's error."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(USER_ERROR)


if __name__ == "__main__":
    # The devices to compile for are only described: nothing of this machine but its CPU is used.
    jax.config.update("jax_platforms", "cpu")
    app.run(main, flags_parser=parse_flags)
