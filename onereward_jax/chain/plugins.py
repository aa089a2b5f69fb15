"""Plug-ins named in the config: a data source, an annotator, an oracle, a reward, an algorithm.

A plug-in is a module (`my_package.source`) or the path of a Python file (`my_source.py`). It has
one function, named after what it makes, and may declare the config fields that it reads:

    FIELDS = {"my_source.scenes": whole(1)}

    def make_source(config): ...

The rules are those of `allowed_values`. If such a field or the file changes, the stage is rerun;
for an installed module, if its optional `VERSION` (a str) does. An optional `check(config)` is
called before the first stage; an optional `describe(config)` returns text for the model card.
`docs/extend.md` has an example of each.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.chain.allowed_values import Rule
from onereward_jax.storage import local_path

FUNCTIONS = {
    "data.source": "make_source",
    "candidates.transform": "make_transform",
    "annotate.by": "make_annotator",
    "rl.reward": "make_reward",
    "rl.algorithm": "make_algorithm",
    "evaluate.oracle": "make_oracle",
}
"""Config field that may name a plug-in -> name of the plug-in's function."""

BUILT_IN = {
    "data.source": ("folder", "tfds"),
    "candidates.transform": ("",),
    "annotate.by": ("people", "web"),
    "rl.reward": ("judge",),
    "rl.algorithm": ("frozen", "dynamic", "nft", "grpo", "refl", "winners", "dpo"),
    "evaluate.oracle": ("",),
}
"""Config field -> built-in values, which are not plug-ins."""


def maker(config: FrozenConfigDict, field: str) -> Callable[..., Any] | None:
    """The function of the plug-in named by a field; None if it names none.

    Args:
      config: the full config.
      field: one of `FUNCTIONS`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no such module, or it lacks the function.
    """
    module = plugin(config, field)
    if module is None:
        return None
    function = getattr(module, FUNCTIONS[field], None)
    if not callable(function):
        raise ValueError(
            f"config.{field} is {_name(config, field)!r}: it has no function {FUNCTIONS[field]}"
        )
    return function


def check_plugin(config: FrozenConfigDict, field: str) -> None:
    """Checks that the plug-in exists, and calls its `check(config)`; before the first stage.

    Raises:
      FileNotFoundError, ValueError: as `maker`, or what `check` raises.
    """
    if maker(config, field) is not None:
        getattr(plugin(config, field), "check", lambda config: None)(config)


def plugin(config: FrozenConfigDict, field: str) -> ModuleType | None:
    """The module named by a field; None if it names none. Raises as `maker`."""
    name = _name(config, field)
    return None if name is None else load(name, field)


def fields_of(config: FrozenConfigDict, field: str) -> Mapping[str, Rule]:
    """The config fields that the plug-in of a field reads, by dotted name. Raises as `maker`."""
    module = plugin(config, field)
    return {} if module is None else getattr(module, "FIELDS", {})


def described(config: FrozenConfigDict, field: str) -> str:
    """Text for a model card: the plug-in's `describe(config)`, or its name."""
    module = plugin(config, field)
    describe = getattr(module, "describe", None)
    return describe(config) if describe else f"`{_name(config, field)}`"


def load(name: str, field: str) -> ModuleType:
    """Imports a module by name, or a Python file by path.

    Args:
      name: a dotted name, or a path that ends in ".py".
      field: the config field, for error messages.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no such module.
    """
    if name.endswith(".py"):
        path = local_path(name)
        if not path.is_file():
            raise FileNotFoundError(f"config.{field} is {name!r}: there is no such file")
        return _load_file(path.resolve(), path.stat().st_mtime_ns)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # an import inside the module failed
        known = ", ".join(repr(one) for one in BUILT_IN.get(field, ()) if one)
        choices = f"neither {known}" if known else "neither empty"
        raise ValueError(
            f"config.{field} is {name!r}: {choices} nor an existing module or .py file"
        ) from error


@functools.cache
def _load_file(path: pathlib.Path, changed: int) -> ModuleType:
    """Cached per file version: loading a file twice would create distinct classes."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # so that its dataclasses and pickles find it
    spec.loader.exec_module(module)
    return module


def _name(config: FrozenConfigDict, field: str) -> str | None:
    section, name = field.split(".")
    value = config.get(section, {}).get(name, "")
    return None if value in BUILT_IN[field] or not value else str(value)
