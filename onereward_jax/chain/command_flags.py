"""The command lines of `main` and `train_compile`: flags, and fields of the config as flags."""

from __future__ import annotations

import sys

from absl import flags, logging

from onereward_jax.chain.saved_command import given_command, last_flags, read_command
from onereward_jax.common.absl_help import print_help
from onereward_jax.common.config_files import check_overrides, check_tuples, load_config
from onereward_jax.common.user_errors import exit_with
from onereward_jax.common.user_path import user_path
from onereward_jax.task_file import VARIABLE
from onereward_jax.tasks import OWN


def parse_flags(argv: list[str], doc: str, flag: str) -> list[str]:
    """absl's parser, with one-line errors, and suggestions for misspelled config fields.

    Args:
      argv: the command line. `--resume`, if the command has that flag, is replaced by the flags of
        the run in `--workdir`.
      doc, flag: for `--help`, see `print_help`.
    """
    if "--help" in argv[1:]:
        print_help(doc, flag)
    # jax, orbax and TFDS are verbose at level info; --verbosity=0 restores it. Set as a value, not
    # as a default, which app.run would replace by info.
    flags.FLAGS.verbosity = logging.WARNING
    argv = [with_home(one) for one in argv]
    try:
        if "resume" in flags.FLAGS:
            argv = _with_former_flags(argv)
        command = given_command(argv)
        if command is not None:
            defaults = load_config(command.config)
            check_overrides(argv, defaults)
            argv = last_flags(argv, defaults)
            sys.argv[:] = argv  # config_flags reads the overridden fields from there
        rest = flags.FLAGS(argv)
        if command is not None:
            check_tuples(flags.FLAGS.config, defaults)
        if rest[1:]:
            raise ValueError(f"stray argument {rest[1]!r}: flags look like --name=value")
        return rest
    except (flags.Error, ValueError) as error:
        if "--traceback" in argv:
            raise
        exit_with(error)


def with_home(argument: str) -> str:
    """The argument, with the home folder for "~" in --config=~/... and --workdir=~/...

    Shells do so only at the beginning of an argument; fields of a config are expanded when read.
    """
    flag, equals, value = argument.partition("=")
    if flag.lstrip("-") not in ("config", "workdir") or not value.startswith("~"):
        return argument
    return f"{flag}{equals}{user_path(value)}"


def _with_former_flags(argv: list[str]) -> list[str]:
    """The command line with `--resume` replaced by the flags of the run."""
    if "--resume" not in argv[1:]:
        return argv
    if given_command(argv) is not None:
        raise ValueError("give either --resume or --config, not both")
    workdir = next((one.partition("=")[2] for one in argv if one.startswith("--workdir=")), "")
    if not workdir:
        raise ValueError("--resume needs --workdir=...: the folder of the run to resume")
    former = read_command(workdir)
    if former.tasks != OWN.path:
        raise ValueError(
            f"--resume: the run in {workdir} was started with {VARIABLE}={former.tasks}, now it is "
            f"{OWN.path!r}: the tasks are in that file"
        )
    place = argv.index("--resume")
    return [*argv[:place], *former.flags(), *argv[place + 1 :]]
