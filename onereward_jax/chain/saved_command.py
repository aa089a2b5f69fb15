"""`command.json`: config file and flags of a run, for `--resume`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.config_files import check_overrides, flatten_config, load_config
from onereward_jax.storage import local_path
from onereward_jax.tasks import OWN

FILE = "command.json"


@dataclasses.dataclass(frozen=True)
class Command:
    """The command of a run.

    Attributes:
      config: absolute path of the config file, with its variant.
      overrides: `--config.field=value`, in the given order.
      tasks: absolute path of the file in the variable ONEREWARD_TASKS; "" for none.
    """

    config: str
    overrides: tuple[str, ...] = ()
    tasks: str = OWN.path

    def flags(self) -> list[str]:
        """The command line flags."""
        return [f"--config={self.config}", *self.overrides]

    def __str__(self) -> str:
        return " ".join(self.flags())


def given_command(argv: Sequence[str]) -> Command | None:
    """Parses the command from these arguments; None without `--config`."""
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
    """Removes all but the last flag for each config field.

    absl would concatenate the values of a tuple that is set twice, e.g. with `--resume`. For a
    field that is None in the config file, `=None` is removed, because absl would parse it as a
    string.

    Args:
      argv: a command line.
      config: the config without overrides.
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
    """Groups a flag that sets a field with its value."""
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
    """Reads the command of the run in `workdir`, a folder or gs://bucket/path.

    Raises:
      ValueError: there is none, or the file is damaged.
    """
    path = local_path(f"{str(workdir).rstrip('/')}/{FILE}")
    if not path.is_file():
        raise ValueError(f"there is no run in {workdir} ({FILE} is missing)")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        tasks = str(fields.get("tasks", ""))
        return Command(str(fields["config"]), tuple(map(str, fields["overrides"])), tasks)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): give the flags again") from error


def saved_config(workdir: str | pathlib.Path) -> FrozenConfigDict:
    """The config of the run in `workdir`, with the flags it was started with.

    Raises:
      ValueError: as `read_command`, or the config no longer has a field that was set.
    """
    command = read_command(workdir)
    defaults = load_config(command.config)
    check_overrides(command.overrides, defaults)
    argv = ["", *last_flags(command.overrides, defaults)]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", defaults, flag_values=values, sys_argv=argv)
        values(argv)
    except flags.Error as error:
        raise ValueError(f"{FILE} in {workdir}: {error}") from error
    return FrozenConfigDict(values.config)


def write_command(workdir: pathlib.Path, command: Command) -> None:
    """Writes the file atomically."""
    with atomic_file(workdir / FILE) as draft:
        draft.write_text(json.dumps(dataclasses.asdict(command), indent=2), encoding="utf-8")


def overridden(overrides: Sequence[str]) -> list[str]:
    """The fields, as `config.a.b`, set by flags like `--config.a.b=1` or `--noconfig.a.c`."""
    names = (flag.lstrip("-").partition("=")[0] for flag in overrides)
    return [name.removeprefix("no") if name.startswith("noconfig.") else name for name in names]
