"""`command.json`: the config file and flags of a run, so that `--resume` repeats them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

FILE = "command.json"


@dataclasses.dataclass(frozen=True)
class Command:
    """How a run was started.

    Attributes:
      config: absolute path of the config file, with its variant.
      overrides: `--config.field=value`, in the order in which they were given.
    """

    config: str
    overrides: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """As they stand on a command line."""
        return [f"--config={self.config}", *self.overrides]

    def __str__(self) -> str:
        return " ".join(self.flags())


def given_command(argv: Sequence[str]) -> Command | None:
    """The command that these arguments make; None without `--config`."""
    config, overrides = None, []
    for position, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            continue
        if name == "config":
            config = value if equals else next(iter(argv[position + 1 :]), None)
        elif name.startswith(("config.", "noconfig.")):
            follows = not equals and position + 1 < len(argv) and argv[position + 1][:1] != "-"
            overrides.append(f"{argument}={argv[position + 1]}" if follows else argument)
    if config is None:
        return None
    path, colon, variant = config.partition(":")
    return Command(f"{pathlib.Path(path).absolute()}{colon}{variant}", tuple(overrides))


def read_command(workdir: pathlib.Path) -> Command:
    """The command of the run in `workdir`.

    Raises:
      ValueError: no run has left one there, or the file is damaged.
    """
    path = workdir / FILE
    if not path.is_file():
        raise ValueError(f"--resume: there is no run in {workdir} ({FILE} is missing)")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Command(str(fields["config"]), tuple(map(str, fields["overrides"])))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): give the flags again") from error


def write_command(workdir: pathlib.Path, command: Command) -> None:
    """Writes the file as a whole."""
    workdir.mkdir(parents=True, exist_ok=True)
    partial = (workdir / FILE).with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(command), indent=2), encoding="utf-8")
    os.replace(partial, workdir / FILE)


def overridden(overrides: Sequence[str]) -> list[str]:
    """The fields, as `config.a.b`, that flags such as `--config.a.b=1` or `--noconfig.a.c` set."""
    names = (flag.lstrip("-").partition("=")[0] for flag in overrides)
    return [name.removeprefix("no") if name.startswith("noconfig.") else name for name in names]
