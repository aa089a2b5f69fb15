"""Flags, then one report.

    python -m onereward_jax.train_compile --config=configs/flux_fill_dev.py --topology=v5p:4x4x4

Any field of the config can be set as --config.<section>.<field>=<value>, as for onereward_jax.main.
What is compiled are the large functions of the stages of `config.stages`, or of --stage alone. With
--suggest the mesh, the batch and what is computed again are searched for instead of taken from the
config. Exit code 0: everything fits. 1: something does not. 2: the command line or the config is at
fault. 70: this program or the compiler is.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from onereward_jax.chain.command_flags import parse_flags
from onereward_jax.common.user_errors import exit_with
from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.chips import CHIPS
from onereward_jax.train_compile.programs import JOBS, make_programs
from onereward_jax.train_compile.report import compile_report, print_report, print_summary
from onereward_jax.train_compile.suggest import best_of, flags_of, print_trials, search
from onereward_jax.train_compile.topology import Topology

DOES_NOT_FIT, CRASHED = 1, 70

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with :variant where it has some."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chips to compile for, as in v5p:4x4x4; of GPUs hosts and GPUs per host, as in h100:8x8. "
    f"Generations: {', '.join(CHIPS)}.",
)
_SLICES = flags.DEFINE_integer("slices", 1, "Slices of that topology; config.mesh.data spans them.")
_STAGE = flags.DEFINE_enum(
    "stage", None, list(JOBS), "Whose functions to compile. Left out, those of a whole run."
)
_SUGGEST = flags.DEFINE_bool(
    "suggest",
    False,
    "Search mesh, rematerialisation, batch and dtype for the fastest step of --stage (rl) with "
    "which it fits, and batches with which candidates and evaluate do.",
)
_JSON = flags.DEFINE_bool("json", False, "Print the report as JSON.")


def main(argv: Sequence[str]) -> None:
    """Compile and report; errors of the user end in one sentence."""
    del argv
    try:
        for name, value in (("config", _CONFIG.value), ("topology", _TOPOLOGY.value)):
            if value is None:
                raise ValueError(f"--{name} is needed; --help explains it")
        topology = Topology.named(_TOPOLOGY.value, _SLICES.value)
        fits = suggest(topology) if _SUGGEST.value else report(topology)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        exit_with(error)
    except Exception:  # noqa: BLE001
        # Python's own code for it would say that the step does not fit
        traceback.print_exc()
        sys.exit(CRASHED)
    sys.exit(0 if fits else DOES_NOT_FIT)


def report(topology: Topology) -> bool:
    """Compiles the config as it is; whether all of it fits."""
    config, console = _CONFIG.value, Console()
    mesh = make_mesh(**config.mesh, devices=topology.devices())
    stages = [_STAGE.value] if _STAGE.value else [one for one in JOBS if one in config.stages]
    if not stages:
        raise ValueError(f"config.stages has none of {', '.join(JOBS)}: nothing to compile")
    # all of them first: a mistake in the config is told at once
    jobs = {name: job for one in stages for name, job in make_programs(config, one, mesh).items()}
    made = []
    for name, job in jobs.items():
        made.append(compile_report(job, name, topology, mesh))
        jax.clear_caches()
        if not _JSON.value:
            print_report(made[-1], console)
    fits = all(one.fits for one in made)
    if _JSON.value:
        print(json.dumps({"fits": fits, "compiled": [one.to_dict() for one in made]}, indent=1))
    elif len(made) > 1:
        print_summary(made, console)
    return fits


def suggest(topology: Topology) -> bool:
    """Searches for the best way; whether there is one."""
    stage = _STAGE.value or "rl"
    trials = search(_CONFIG.value, stage, topology)
    best = best_of(trials)
    if _JSON.value:
        found = None if best is None else flags_of(best, stage)
        compiled = [one.to_dict() for trial in trials for one in (trial.report, *trial.others)]
        print(json.dumps({"flags": found, "compiled": compiled}, indent=1))
    else:
        print_trials(trials, stage, topology, Console())
    return best is not None


def cli() -> None:
    """The command `onereward-compile`."""
    # Devices are only described: nothing of this machine but its CPU is used.
    jax.config.update("jax_platforms", "cpu")
    app.run(main, flags_parser=lambda argv: parse_flags(argv, __doc__, "topology"))


if __name__ == "__main__":
    cli()
