"""`command.json`: the config file and flags of a run, so that `--resume` repeats them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.config_files import flatten_config
from onereward_jax.storage import local_path

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
    config = None
    for position, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            config = value if equals else next(iter(argv[position + 1 :]), None)
    if config is None:
        return None
    path, colon, variant = config.partition(":")
    overrides = (f"{part[0]}={part[1]}" if part[1:] else part[0] for part in _parts(argv))
    chosen = tuple(flag for flag in overrides if _sets_field(flag))
    return Command(f"{pathlib.Path(path).absolute()}{colon}{variant}", chosen)


def last_flags(argv: Sequence[str], config: ConfigDict) -> list[str]:
    """The arguments with one flag for each field of the config: the last one given.

    absl would join the values of a tuple that is set twice, as beside `--resume`. A field that is
    None in the config's file is None again with `=None`, which absl takes for a text.

    Args:
      argv: of a command line.
      config: as its file has it.
    """
    defaults, kept, fields = flatten_config(config), [], set()
    for part in reversed(_parts(argv)):
        if _sets_field(part[0]):
            (field,) = overridden(part[:1])
            value = part[1] if part[1:] else part[0].partition("=")[2]
            repeated = field in fields
            fields.add(field)
            if repeated or (value == "None" and defaults.get(field, value) is None):
                continue
        kept.append(part)
    return [argument for part in reversed(kept) for argument in part]


def _parts(argv: Sequence[str]) -> list[list[str]]:
    """The arguments, a flag that sets a field together with its value."""
    parts: list[list[str]] = []
    for argument in argv:
        awaits = parts and len(parts[-1]) == 1 and "=" not in parts[-1][0]
        if awaits and _sets_field(parts[-1][0]) and not argument.startswith("-"):
            parts[-1].append(argument)
        else:
            parts.append([argument])
    return parts


def _sets_field(argument: str) -> bool:
    name = argument.lstrip("-")
    return argument.startswith("-") and name.startswith(("config.", "noconfig."))


def read_command(workdir: str | pathlib.Path) -> Command:
    """The command of the run in `workdir`, a folder or gs://bucket/path.

    Raises:
      ValueError: no run has left one there, or the file is damaged.
    """
    path = local_path(f"{str(workdir).rstrip('/')}/{FILE}")
    if not path.is_file():
        raise ValueError(f"--resume: there is no run in {workdir} ({FILE} is missing)")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Command(str(fields["config"]), tuple(map(str, fields["overrides"])))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): give the flags again") from error


def write_command(workdir: pathlib.Path, command: Command) -> None:
    """Writes the file as a whole."""
    with atomic_file(workdir / FILE) as draft:
        draft.write_text(json.dumps(dataclasses.asdict(command), indent=2), encoding="utf-8")


def overridden(overrides: Sequence[str]) -> list[str]:
    """The fields, as `config.a.b`, that flags such as `--config.a.b=1` or `--noconfig.a.c` set."""
    names = (flag.lstrip("-").partition("=")[0] for flag in overrides)
    return [name.removeprefix("no") if name.startswith("noconfig.") else name for name in names]
