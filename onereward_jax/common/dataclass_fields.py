"""Checks the values of a config.json against the dataclass that will hold them."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from onereward_jax.common.listing import shown

LARGEST = 2**31 - 1
"""Of integers: what an int32 holds."""

MOST_LAYERS = 1000
"""Of counts of layers: more are a mistake, and cost memory before any weight is read."""

LARGEST_FLOAT = 3e38
"""Of numbers: they are computed with in float32."""

POSITIVE = (
    "image_std",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rms_norm_eps",
    "rope_theta",
    "scaling_factor",
    "shift",
)
"""Numbers above 0: something is divided by them, or their root or logarithm is taken."""


class _Range(NamedTuple):
    """The numbers of a field: integers from `least` to `most`; floats above 0, or any."""

    least: int
    most: int
    positive: bool


def check_fields(where: str, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks that `values` have the types and ranges of the fields of the dataclass `cls`.

    An integer is accepted for a float. Integers are sizes and counts, so they must be at least 1;
    those named `*_id` and those in tuples must be at least 0. Floats are finite.

    Args:
      where: the source of the values, for the message.
      cls: a dataclass; names in `values` that it does not have are not checked.

    Returns:
      The values; integers of float fields are floats, as JAX takes an integer for an int32.

    Raises:
      ValueError: naming the first field with a wrong value.
    """
    kinds, checked = typing.get_type_hints(cls), dict(values)
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            continue
        allowed = _range_of(name)
        if not _holds(kind, value, allowed):
            expected = _called(kind, allowed)
            raise ValueError(f"{where}: {name} is {shown(value)}, {expected} expected")
        if kind is float:
            checked[name] = float(value)
    return checked


def _range_of(name: str) -> _Range:
    layers = name.endswith(("layers", "layers_per_block")) or name == "depth"
    return _Range(
        least=0 if name.endswith("_id") else 1,
        most=MOST_LAYERS if layers else LARGEST,
        positive=name in POSITIVE,
    )


def _holds(kind: Any, value: Any, allowed: _Range) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_holds(one, value, allowed) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        inner, each = typing.get_args(kind)[0], allowed._replace(least=0)
        return isinstance(value, tuple | list) and all(_holds(inner, one, each) for one in value)
    if kind is bool or not isinstance(kind, type) or isinstance(value, bool):
        return kind is not int and kind is not float and isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and allowed.least <= value <= allowed.most
    if kind is float:
        # A comparison with NaN is false.
        inside = isinstance(value, int | float) and -LARGEST_FLOAT <= value <= LARGEST_FLOAT
        return inside and (value > 0 or not allowed.positive)
    return isinstance(value, kind)


def _called(kind: Any, allowed: _Range) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_called(one, allowed) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a list ({_called(typing.get_args(kind)[0], allowed._replace(least=0))} each)"
    names = {
        int: f"an integer from {allowed.least} to {allowed.most}",
        float: "a number above 0" if allowed.positive else "a number",
        bool: "true or false",
        str: "a text",
        types.NoneType: "null",
    }
    return names.get(kind, f"a {kind.__name__}")
