"""Train a mask-guided image editor with OneReward: one config, one workdir, a chain of stages.

    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini
    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini --stage=rl

Any field of the config can be set from the command line as --config.<section>.<field>=<value>.
"""

from __future__ import annotations

import pathlib
import sys
import traceback
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from onereward_jax.common.config import check_overrides, check_tuples, load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import STAGES, Outcome, run_chain

USER_ERROR = 2
"""Exit code when the command line, the config or the material is at fault."""

_STAGE_HELP = (
    "Run this stage alone; the stages it reads must be complete. Left out, the stages named in "
    "config.stages run in this order, except those that are complete and unchanged:\n"
    + "\n".join(f"  {stage.name:10} {stage.summary}" for stage in STAGES)
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with :variant where it has some."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run; made when missing.")
_STAGE = flags.DEFINE_enum("stage", None, [stage.name for stage in STAGES], _STAGE_HELP)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")


def main(argv: Sequence[str]) -> None:
    """Run the chain and print its closing table; errors of the user end in one sentence."""
    try:
        if _CONFIG.value is None or _WORKDIR.value is None:
            raise ValueError("--config and --workdir are needed; --help explains them")
        if argv[1:]:
            raise ValueError(f"stray argument {argv[1]!r}: flags look like --name=value")
        config = _CONFIG.value
        if config.distributed:
            jax.distributed.initialize()
        outcomes = run_chain(
            config, _WORKDIR.value, make_mesh(**config.mesh), STAGES, only=_STAGE.value
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if _TRACEBACK.value or not _is_sentence(error):
            raise
        _exit_with(error)
    if jax.process_index() == 0:
        print_outcomes(outcomes)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the closing table: per stage, whether it ran, how long it took, what came out."""
    table = Table("stage", "status", "seconds", "results")
    for outcome in outcomes:
        results = ", ".join(f"{name} {value}" for name, value in outcome.record.results.items())
        status = "ran" if outcome.ran else "unchanged"
        table.add_row(outcome.stage, status, f"{outcome.record.seconds:.0f}", results)
    Console().print(table)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one sentence for every mistake, and typos in config fields named."""
    if "--help" in argv[1:]:
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    # jax, orbax and grain tell a lot at the level of info; --verbosity=0 brings it back.
    flags.FLAGS.set_default("verbosity", logging.WARNING)
    try:
        path = _config_path(argv)
        if path is None:
            return flags.FLAGS(argv)
        defaults = load_config(path)
        check_overrides(argv, defaults)
        rest = flags.FLAGS(argv)
        check_tuples(_CONFIG.value, defaults)
        return rest
    except (flags.Error, ValueError) as error:
        if "--traceback" in argv:
            raise
        _exit_with(error)


def _config_path(argv: Sequence[str]) -> str | None:
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def _is_sentence(error: Exception) -> bool:
    """Whether the message alone tells a user what to mend.

    It does for files that cannot be read, for packages of an extra that is not installed, and
    for a ValueError raised in this package. Anything else is a bug and keeps its traceback.
    """
    if isinstance(error, OSError):
        return error.filename is not None or _raised_here(error)
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("onereward_jax")
    return _raised_here(error)


def _raised_here(error: Exception) -> bool:
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return pathlib.Path(__file__).parent in pathlib.Path(innermost.filename).parents


def _exit_with(error: Exception) -> None:
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = "; the extras of setup.py bring it, as in: pip install -e '.[mini]'"
    print(f"error: {error}{hint}", file=sys.stderr)
    sys.exit(USER_ERROR)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
