"""Loads config files, lists their fields by dotted name, and catches typos in overrides."""

from __future__ import annotations

import difflib
import inspect
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

_OVERRIDE = re.compile(r"--?(?P<no>no)?config\.(?P<field>[^=\s]+)(=.*)?", re.DOTALL)


def load_config(path: str) -> ConfigDict:
    """Loads the config of `path`, "file.py" or "file.py:variant", without any overrides.

    Raises:
      ValueError: the file does not exist, has no `get_config`, or has no such variant.
    """
    file, _, variant = path.partition(":")
    if not pathlib.Path(file).is_file():
        raise ValueError(f"--config: there is no file {file}")
    make_importable(file)
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"--config: {file} has no function get_config")
    if variant and not inspect.signature(get_config).parameters:
        raise ValueError(f"--config: {file} has no variants")
    return get_config(variant) if variant else get_config()


def make_importable(file: str) -> None:
    """Lets a config file import `configs.defaults`, from its own folder or from this checkout."""
    for folder in (
        pathlib.Path(file).resolve().parent,
        pathlib.Path(__file__).parents[2] / "configs",
    ):
        if (folder / "__init__.py").is_file() and str(folder.parent) not in sys.path:
            sys.path.append(str(folder.parent))


def flatten_config(config: ConfigDict, prefix: str = "config") -> dict[str, Any]:
    """Every leaf field with its dotted name, e.g. `{"config.rl.steps": 500}`."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields |= flatten_config(value, f"{prefix}.{name}")
        else:
            fields[f"{prefix}.{name}"] = value
    return fields


def check_overrides(argv: Sequence[str], config: ConfigDict) -> None:
    """Check that every `--config.a.b=value` of a command line names a field of `config`.

    Raises:
      ValueError: a name is unknown (the message suggests the nearest one) or names a section.
    """
    fields = list(flatten_config(config))
    for argument in argv:
        match = _OVERRIDE.fullmatch(argument)
        if match is None:
            continue
        field = "config." + match["field"]
        if field in fields:
            continue
        if any(known.startswith(field + ".") for known in fields):
            raise ValueError(f"{field} is a section: set one of its fields, as in --{field}.x=1")
        # Compare without the prefix: it would make any two names look similar.
        names = [known.removeprefix("config.") for known in fields]
        nearest = difflib.get_close_matches(match["field"], names, n=1, cutoff=0.6)
        hint = f"; did you mean config.{nearest[0]}?" if nearest else ""
        raise ValueError(f"{field} is not a field of the config{hint}")


def check_tuples(config: ConfigDict, defaults: ConfigDict) -> None:
    """Check that items of tuples set on the command line have the types of the default's items.

    `ml_collections` checks the type of every other field, but not of tuple items. A tuple that is
    empty by default has texts.

    Raises:
      ValueError: naming the field.
    """
    defaults = flatten_config(defaults)
    for field, value in flatten_config(config).items():
        if not isinstance(value, tuple):
            continue
        allowed = {type(item) for item in defaults[field]} or {str}
        if float in allowed:
            allowed.add(int)
        for item in value:
            if type(item) not in allowed:
                types = " or ".join(sorted(one.__name__ for one in allowed))
                raise ValueError(f"{field}: {item!r} is not of type {types}")
