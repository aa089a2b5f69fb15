"""Collectives and large arrays of an optimised HLO module, parsed from its text.

A collective inside a loop is counted once per iteration. The trip count is the compiler's
`known_trip_count`, else the constant in the loop's condition, else `unknown_trips`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)

BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" ({'|'.join(COLLECTIVES)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_OPERAND = re.compile(r"%[\w.\-]+")
_CALLED = re.compile(r"\b(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_FUSED = re.compile(r" fusion\(.*\bcalls=%?([\w.\-]+)")
_SCOPE = re.compile(r'op_name="([^"]+)"')
_NO_BUFFER = re.compile(r" (parameter|get-tuple-element|tuple|bitcast|constant)\(")
_CONSTANT = re.compile(r"^s32\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one step, on one device.

    Attributes:
      calls: number of calls in a step.
      bytes: the larger of input and output bytes, summed over calls.
      largest: bytes of the largest single call.
    """

    calls: float
    bytes: float
    largest: float


@dataclasses.dataclass
class _Computation:
    """One HLO computation.

    Attributes:
      own: (kind, bytes) of its collectives.
      called: (computation, calls per run of this one, condition). The condition is given only for
        loops without a known trip count, else None.
      constants: its int32 scalar constants.
    """

    own: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    called: list[tuple[str, float, str | None]] = dataclasses.field(default_factory=list)
    constants: list[int] = dataclasses.field(default_factory=list)


def collective_traffic(text: str, unknown_trips: float) -> dict[str, Traffic]:
    """Traffic of a step per kind of collective, the largest first.

    Args:
      text: `jax.stages.Compiled.as_text()`.
      unknown_trips: iterations of loops whose trip count cannot be read from the module.
    """
    entry, computations = _parse(text)
    calls, moved, largest = collections.Counter(), collections.Counter(), collections.Counter()

    def visit(name: str, times: float) -> None:
        computation = computations.get(name)
        if computation is None:
            return
        for kind, size in computation.own:
            calls[kind] += times
            moved[kind] += times * size
            largest[kind] = max(largest[kind], size)
        for called, trips, condition in computation.called:
            if condition is not None:
                bounds = computations[condition].constants
                trips = float(bounds[0]) if len(bounds) == 1 else unknown_trips
            visit(called, times * trips)

    visit(entry, 1.0)
    return {kind: Traffic(calls[kind], size, largest[kind]) for kind, size in moved.most_common()}


def largest_arrays(text: str, count: int) -> tuple[str, ...]:
    """The largest arrays that a module computes, as "GiB shape (operation)".

    For compilers that do not list them in an out-of-memory error. A fusion counts as one
    operation. Each pair of shape and operation is listed once.
    """
    fused, found, inside = set(_FUSED.findall(text)), {}, False
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            inside = bool(header) and header[2] not in fused
            continue
        _, equals, definition = line.partition(" = ")
        if not (inside and equals) or definition.startswith("(") or _NO_BUFFER.search(definition):
            continue
        scope = _SCOPE.search(definition)
        shape = definition.partition("{")[0].partition(" ")[0]
        found[f"{shape} ({scope[1]})" if scope else shape] = _bytes(definition)
    largest = sorted(found.items(), key=lambda item: -item[1])[:count]
    return tuple(f"{size / 2**30:.2f}G {what}" for what, size in largest)


def _parse(text: str) -> tuple[str, dict[str, _Computation]]:
    """Name of the entry computation, and all computations by name."""
    entry, computations, current = "", {}, _Computation()
    shapes: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            if header:
                current = computations[header[2]] = _Computation()
                shapes = {}
                entry = header[2] if header[1] else entry
            continue
        name, equals, definition = line.strip().removeprefix("ROOT ").partition(" = ")
        if not equals:
            continue
        shapes[name] = definition
        if definition.startswith("s32[]"):
            current.constants += map(int, _CONSTANT.findall(definition))
        # Fusions are most of a module and contain neither collectives nor loops.
        if " fusion(" in definition:
            continue
        collective = _COLLECTIVE.search(definition)
        if collective:
            current.own.append((collective[1], _moved(definition, collective, shapes)))
            continue
        condition, trips = _CONDITION.search(definition), _TRIPS.search(definition)
        loop = condition[1] if condition and not trips else None
        times = float(trips[1]) if trips else 1.0
        current.called += [(called, times, loop) for called in _CALLED.findall(definition)]
        for branches in _BRANCHES.findall(definition):
            names = [branch.strip().lstrip("%") for branch in branches.split(",")]
            current.called += [(branch, 1.0 / len(names), None) for branch in names]
    return entry, computations


def _moved(definition: str, collective: re.Match[str], shapes: dict[str, str]) -> float:
    """Bytes of a collective: the larger of its inputs and its outputs."""
    operands = _OPERAND.findall(definition[collective.end() :].partition(")")[0])
    into = math.fsum(_bytes(shapes[operand]) for operand in operands)
    out = _bytes(definition[: collective.start()])
    # A "-start" operation also returns its operands.
    return max(into, out - into if collective[2] else out)


def _bytes(shape: str) -> float:
    """Bytes of the shape (an array or a tuple of arrays) at the start of a definition."""
    if shape.startswith("("):
        shape = shape.partition(") ")[0]
    else:
        shape = shape.partition(" ")[0]
    return math.fsum(
        BYTES.get(kind, 0) * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in _ARRAY.findall(shape)
    )
