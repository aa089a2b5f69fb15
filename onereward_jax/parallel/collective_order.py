"""Keeps collectives in program order on multi-process CPU runs.

Gloo, which connects CPU processes, matches the messages of a device group by order alone. XLA's
CPU runtime orders collectives, with one gap: it starts the operations after a loop or branch while
collectives inside still run, unless it needs their result. An all-gather of weights after a scan
over layers can then overtake the all-gathers inside the scan, at a different point in each
process, and a process receives the data of another collective: "Received data size doesn't match
expected size". (`WhileThunk` and `ConditionalThunk` return before their collectives end, and the
edges between collectives are scheduling edges, which do not wait: xla/backends/cpu/runtime.)

`in_order` adds the missing data dependence. It evaluates each loop as early as possible and
everything else as late as possible. Every value computed before a loop and used after it passes
through a `lax.select` whose predicate is computed from the loop's result and always true. Values
do not change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxprs_in_params

LOOPS = ("scan", "while", "cond")
"""Primitives whose collectives XLA's CPU runtime does not wait for."""

OPAQUE = ("shard_map",)
"""Not rewritten inside; what follows waits for them as for a loop."""

_Values = list[tuple[Any, int]]
"""Arrays, each with the number of the last loop that it depends on."""


def in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with everything after a loop depending on its result; wrap it in `jax.jit`.

    Args:
      function: takes and returns pytrees; leaves that are not arrays are static.
    """

    def ordered(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        traced = [index for index, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def flat(*arrays: jax.Array) -> Any:
            filled = dict(zip(traced, arrays))
            own = [filled.get(index, leaf) for index, leaf in enumerate(leaves)]
            return function(*jax.tree.unflatten(structure, own))

        arrays = [leaves[index] for index in traced]
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(_flat(closed), arrays))

    return ordered


@dataclasses.dataclass
class _Loops:
    """The loops so far.

    Attributes:
      count: how many.
      true: boolean scalar, always true, that depends on the last loop.
    """

    count: int = 0
    true: jax.Array | None = None

    def passed(self, result: jax.Array | None) -> None:
        """Counts one more loop; `result` is an output of it, None if there is none to wait for."""
        if result is None:
            return
        largest = jnp.max(result).astype(jnp.float32)
        number = lax.bitcast_convert_type(largest, jnp.int32)
        self.count += 1
        # n * (n + 1) is always even; XLA does not simplify it away.
        self.true = (number * (number + 1)) & 1 == 0


def _flat(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Inlines calls (jit, remat) that contain loops.

    XLA inlines them too, and a loop may depend on less than the whole call.
    """

    def evaluate(inner: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        names = (*inner.jaxpr.constvars, *inner.jaxpr.invars)
        values = dict(zip(names, (*inner.consts, *args)))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for eqn in inner.jaxpr.eqns:
            arrays = [read(atom) for atom in eqn.invars]
            with eqn.ctx.manager:
                if eqn.primitive.name not in LOOPS + OPAQUE and _has_loop(eqn):
                    outputs = evaluate(_called(eqn.params), arrays)
                else:
                    outputs = _bind(eqn, arrays, eqn.params)
            values.update(zip(eqn.outvars, outputs))
        return [read(atom) for atom in inner.jaxpr.outvars]

    return jax.make_jaxpr(lambda *args: evaluate(closed, args))(*_shapes(closed))


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The outputs. Loops run as early as their inputs allow, everything else as late as possible.

    An all-gather that a loop does not need, which XLA could move from before the loop to after it,
    is thus placed after it from the start, with inputs that depend on the loop.
    """
    jaxpr, loops = closed.jaxpr, _Loops()
    makers = {var: index for index, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    inputs = zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args))
    values = {var: (value, 0) for var, value in inputs}
    done = set()

    def read(atom: Any) -> tuple[Any, int]:
        if isinstance(atom, Literal):
            return atom.val, 0
        value, needs = values[atom]
        if needs < loops.count and not jnp.issubdtype(atom.aval.dtype, jax.dtypes.extended):
            selected = lax.select(loops.true, value, jnp.zeros_like(value))
            values[atom] = selected, loops.count
        return values[atom]

    def run(last: int) -> None:
        """Runs an equation after those that it depends on, in program order."""
        needed, pending = set(), [last]
        while pending:
            index = pending.pop()
            if index not in done and index not in needed:
                needed.add(index)
                atoms = [atom for atom in jaxpr.eqns[index].invars if not isinstance(atom, Literal)]
                pending.extend(makers[atom] for atom in atoms if atom in makers)
        for index in sorted(needed):
            eqn = jaxpr.eqns[index]
            with eqn.ctx.manager:
                outputs = _run(eqn, [read(atom) for atom in eqn.invars], loops)
            values.update(zip(eqn.outvars, outputs))
        done.update(needed)

    for index, eqn in enumerate(jaxpr.eqns):
        if eqn.effects or _has_loop(eqn):
            run(index)
    for atom in jaxpr.outvars:
        if not isinstance(atom, Literal) and atom in makers:
            run(makers[atom])
    return [a.val if isinstance(a, Literal) else values[a][0] for a in jaxpr.outvars]


def _run(eqn: JaxprEqn, inputs: _Values, loops: _Loops) -> _Values:
    """The outputs of an equation."""
    name, params = eqn.primitive.name, eqn.params
    arrays = [value for value, _ in inputs]
    if not _has_loop(eqn):
        needs = max((number for _, number in inputs), default=0)
        return [(value, needs) for value in _bind(eqn, arrays, params)]
    kept = set()
    if name == "scan":
        params = params | {"jaxpr": _ordered(params["jaxpr"])}
        kept = _kept(params["jaxpr"])
    elif name == "while":
        params = params | {"body_jaxpr": _ordered(params["body_jaxpr"])}
        kept = _kept(params["body_jaxpr"])
    elif name == "cond":
        params = params | {"branches": tuple(map(_ordered, params["branches"]))}
    outputs = _bind(eqn, arrays, params)
    loops.passed(_largest([value for i, value in enumerate(outputs) if i not in kept]))
    return [(value, loops.count) for value in outputs]


def _bind(eqn: JaxprEqn, arrays: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    outputs = eqn.primitive.bind(*arrays, **eqn.primitive.get_bind_params(params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _ordered(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The body of a loop, with its collectives in order."""
    if not any(map(_has_loop, closed.jaxpr.eqns)):
        return closed
    flat = _flat(closed)
    return jax.make_jaxpr(lambda *args: _evaluate(flat, args))(*_shapes(closed))


def _shapes(closed: ClosedJaxpr) -> list[jax.ShapeDtypeStruct]:
    return [
        jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
        for aval in closed.in_avals
    ]


def _has_loop(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name in LOOPS + OPAQUE:
        return True
    return any(_has_loop(one) for inner in jaxprs_in_params(eqn.params) for one in inner.eqns)


def _called(params: dict[str, Any]) -> ClosedJaxpr:
    """The inner jaxpr of a call (jit, remat, custom gradient)."""
    inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def _kept(body: ClosedJaxpr) -> set[int]:
    """Indices of the outputs that a body passes through unchanged: they do not wait for it."""
    inputs = set(body.jaxpr.invars)
    return {
        index
        for index, atom in enumerate(body.jaxpr.outvars)
        if isinstance(atom, Literal) or atom in inputs
    }


def _largest(values: Sequence[Any]) -> Any | None:
    """The largest float array, or the largest other array if there is none."""
    numbers = [v for v in values if not jnp.issubdtype(v.dtype, jax.dtypes.extended) and v.size]
    return max(numbers, key=lambda v: (jnp.issubdtype(v.dtype, jnp.floating), v.size), default=None)
