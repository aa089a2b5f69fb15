"""Checks the values of a config.json against the dataclass that will hold them."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.listing import shown


def check_fields(where: str, cls: type, values: Mapping[str, Any]) -> None:
    """Checks that `values` have the types of the fields of the dataclass `cls`.

    An integer is accepted for a float. Integers are sizes and counts, so they must be at least 1;
    those named `*_id` and those in tuples must be at least 0.

    Args:
      where: the source of the values, for the message.
      cls: a dataclass; names in `values` that it does not have are ignored.

    Raises:
      ValueError: naming the first field with a wrong value.
    """
    kinds = typing.get_type_hints(cls)
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            continue
        least = 0 if name.endswith("_id") else 1
        if not _holds(kind, value, least):
            raise ValueError(f"{where}: {name} is {shown(value)}, {_called(kind, least)} expected")


def _holds(kind: Any, value: Any, least: int) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_holds(one, value, least) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return isinstance(value, tuple | list) and all(_holds(inner, one, 0) for one in value)
    if kind is bool or not isinstance(kind, type) or isinstance(value, bool):
        return kind is not int and kind is not float and isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and value >= least
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _called(kind: Any, least: int) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_called(one, least) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a list ({_called(typing.get_args(kind)[0], 0)} each)"
    names = {
        int: f"an integer from {least}",
        float: "a number",
        bool: "true or false",
        str: "a text",
        types.NoneType: "null",
    }
    return names.get(kind, f"a {kind.__name__}")
