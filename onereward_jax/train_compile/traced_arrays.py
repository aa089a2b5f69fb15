"""The largest arrays of a traced step, for compilers that do not list them when out of memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from jax.extend import core

from onereward_jax.train_compile.chips import GIB
from onereward_jax.training.count_jaxpr_flops import inner_jaxprs


def largest_arrays_of(jaxpr: core.Jaxpr, count: int) -> tuple[str, ...]:
    """The largest arrays that the function computes, as "size shape over all devices (operation)".

    As traced: global shapes, whatever their sharding, before fusion. Each shape is listed once,
    with the first operation that computes it.
    """
    found: dict[str, tuple[int, str]] = {}
    for variable, scope in _computed(jaxpr):
        aval = variable.aval
        if hasattr(aval, "shape") and hasattr(aval.dtype, "itemsize"):
            shape = f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
            found.setdefault(shape, (math.prod(aval.shape) * aval.dtype.itemsize, scope))
    largest = sorted(found.items(), key=lambda item: -item[1][0])[:count]
    return tuple(
        f"{size / GIB:.2f}G {shape} over all devices ({scope})" for shape, (size, scope) in largest
    )


def _computed(jaxpr: core.Jaxpr) -> Iterator[tuple[core.Var, str]]:
    """(result, scope) of all operations; those of an inner jaxpr before the one that calls it."""
    for equation in jaxpr.eqns:
        for inner in inner_jaxprs(equation.params):
            yield from _computed(inner)
        scope = f"{equation.source_info.name_stack}/{equation.primitive.name}".lstrip("/")
        yield from ((variable, scope) for variable in equation.outvars)
