"""The command line: flags in, one report out.

    python -m onereward_jax.train_compile --config=configs/flux_fill_dev.py --topology=v5p:4x4x4

Any field of the config can be set as --config.<section>.<field>=<value>, as for onereward_jax.main.
It compiles the large functions of the stages in `config.stages`, or of --stage alone. --suggest
searches for the mesh, the batch size and the remat policy instead of taking them from the config.
Exit code 0: everything fits. 1: something does not fit. 2: error in the command line or the config.
70: this program or the compiler crashed.
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
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.train_compile.chips import CHIPS
from onereward_jax.train_compile.programs import JOBS, make_programs, stages_to_compile
from onereward_jax.train_compile.report import compile_report, print_report, print_summary
from onereward_jax.train_compile.suggest import (
    best_of,
    flags_of,
    int8_share,
    print_trials,
    search,
)
from onereward_jax.train_compile.topology import Topology

DOES_NOT_FIT, CRASHED = 1, 70

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, plus :variant if it has variants."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chips to compile for, e.g. v5p:4x4x4; for GPUs hosts x GPUs per host, e.g. h100:8x8. "
    f"Generations: {', '.join(CHIPS)}.",
)
_SLICES = flags.DEFINE_integer("slices", 1, "Number of TPU slices; config.mesh.data spans them.")
_STAGE = flags.DEFINE_enum(
    "stage", None, list(JOBS), "Compile this stage only. Default: all stages of the run."
)
_SUGGEST = flags.DEFINE_bool(
    "suggest",
    False,
    "Search mesh, remat policy, batch size and dtype of the moments for the fastest step of "
    "--stage (default rl) that fits, and batch sizes with which candidates and evaluate fit.",
)
_JSON = flags.DEFINE_bool("json", False, "Print the report as JSON.")


def main(argv: Sequence[str]) -> None:
    """Compiles and reports; user errors end in a one-line message."""
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
        # Python's own exit code for a crash, 1, means "does not fit" here.
        traceback.print_exc()
        sys.exit(CRASHED)
    sys.exit(0 if fits else DOES_NOT_FIT)


def report(topology: Topology) -> bool:
    """Compiles the config as given; returns whether everything fits."""
    config, console = _CONFIG.value, Console()
    mesh = make_mesh(**config.mesh, devices=topology.devices())
    stages = [_STAGE.value] if _STAGE.value else stages_to_compile(config)
    if not stages:
        raise ValueError(f"config.stages has none of {', '.join(JOBS)}: nothing to compile")
    # Build all jobs before compiling the first: config errors show at once.
    jobs = {name: job for one in stages for name, job in make_programs(config, one, mesh).items()}
    made = []
    with progress_bar("compile", len(jobs), unit="program", program="train_compile") as bar:
        for name, job in jobs.items():
            made.append(compile_report(job, name, topology, mesh))
            jax.clear_caches()
            bar.update()
            if not _JSON.value:
                bar.clear()
                print_report(made[-1], console)
    fits = all(one.fits for one in made)
    if _JSON.value:
        print(json.dumps({"fits": fits, "compiled": [one.to_dict() for one in made]}, indent=1))
    elif len(made) > 1:
        print_summary(made, console)
    return fits


def suggest(topology: Topology) -> bool:
    """Searches for the fastest layout that fits; returns whether there is one."""
    stage = _STAGE.value or "rl"
    trials = search(_CONFIG.value, stage, topology)
    best = best_of(trials)
    if _JSON.value:
        found = None if best is None else flags_of(best, stage)
        compiled = [one.to_dict() for trial in trials for one in (trial.report, *trial.others)]
        print(json.dumps({"flags": found, "compiled": compiled}, indent=1))
    else:
        print_trials(trials, stage, topology, Console())
        if best and (share := int8_share(_CONFIG.value, stage, topology, best.candidate)):
            print(
                f"With --config.rl.rollout_int8=True a step takes about {share:.2f} of this time, "
                "as estimated; results differ a little, see docs/cost.md."
            )
    return best is not None


def cli() -> None:
    """The command `onereward-compile`."""
    # The target devices are only described: this process runs on the CPU.
    jax.config.update("jax_platforms", "cpu")
    app.run(main, flags_parser=lambda argv: parse_flags(argv, __doc__, "topology"))


if __name__ == "__main__":
    cli()
