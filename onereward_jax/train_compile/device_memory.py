"""Memory use of a compiled step on one device, and the compiler's out-of-memory errors."""

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
      peak: peak memory, arguments included.
      arguments, outputs, temporaries: the parts of the peak; `outputs` does not count outputs that
        reuse the memory of donated arguments.
    """

    peak: int
    arguments: int
    outputs: int
    temporaries: int


@dataclasses.dataclass(frozen=True)
class Shortage:
    """Why a step does not fit.

    Attributes:
      needed: bytes that the step needs; 0 if the compiler does not report it.
      buffers: the largest buffers, "size shape (operation)"; empty if not reported.
    """

    needed: int
    buffers: tuple[str, ...]


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """Memory use of a compiled function, as planned by the compiler."""
    analysis = compiled.memory_analysis()
    return Memory(
        peak=analysis.peak_memory_in_bytes,
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
    )


def shortage_of(message: str) -> Shortage | None:
    """Parses a compiler error; None if it is not an out-of-memory error.

    libtpu 0.0.42.1 fails before it plans memory: it reports the total of all arrays of a device,
    arguments and results included, but no list. Other compilers list the largest buffers.
    """
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    used = _USED.search(message)
    needed = int(float(used[1]) * _SCALES[used[2]]) if used else 0
    buffers = []
    for size, description in _BUFFER.findall(message):
        shape = re.search(r"^\s*Shape: ([^{\s]+)", description, re.MULTILINE)
        operation = re.search(r'op_name="([^"]+)"', description)
        buffer = f"{size} {shape[1] if shape else 'of unknown shape'}"
        buffers.append(f"{buffer} ({operation[1]})" if operation else buffer)
    return Shortage(needed, tuple(buffers[:SHOWN_BUFFERS]))


def gib(size: float) -> float:
    """Converts bytes to GiB."""
    return size / GIB
