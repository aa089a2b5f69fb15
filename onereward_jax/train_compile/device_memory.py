"""Memory of a compiled step on one device, and what the compiler says when there is not enough."""

from __future__ import annotations

import dataclasses
import re

import jax

from onereward_jax.train_compile.chips import GIB

_USED = re.compile(r"(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])\b")
_BUFFER = re.compile(
    r"^\s*\d+\. Size: ([\d.]+[KMGT]?)B?\s*$(.*?)(?=^\s*\d+\. Size: |\Z)", re.MULTILINE | re.DOTALL
)
_SCALES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SHOWN_BUFFERS = 8


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      peak: most that is held at any time, arguments included.
      arguments, outputs, temporaries: what the peak is made of; outputs that take the place of
        donated arguments are not counted again in `outputs`.
    """

    peak: int
    arguments: int
    outputs: int
    temporaries: int


@dataclasses.dataclass(frozen=True)
class Shortage:
    """Why a step does not fit.

    Attributes:
      needed: bytes that the step would take; 0 if the compiler does not say.
      buffers: the largest buffers, "size shape (operation)"; none where the compiler does not say.
    """

    needed: int
    buffers: tuple[str, ...]


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """What the compiler planned."""
    analysis = compiled.memory_analysis()
    return Memory(
        peak=analysis.peak_memory_in_bytes,
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
    )


def shortage_of(message: str) -> Shortage | None:
    """Reads an error of the compiler; None if it is about something other than memory.

    libtpu 0.0.42.1 gives up before it plans memory, and says what all arrays of a device take, the
    arguments and the results included, but not which; others list the largest.
    """
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    used = _USED.search(message)
    needed = int(float(used[1]) * _SCALES[used[2]]) if used else 0
    buffers = []
    for size, description in _BUFFER.findall(message):
        shape = re.search(r"^\s*Shape: ([^{\s]+)", description, re.MULTILINE)
        operation = re.search(r'op_name="([^"]+)"', description)
        said = f"{size} {shape[1] if shape else 'of unknown shape'}"
        buffers.append(f"{said} ({operation[1]})" if operation else said)
    return Shortage(needed, tuple(buffers[:SHOWN_BUFFERS]))


def gib(size: float) -> float:
    """Bytes as GiB."""
    return size / GIB
