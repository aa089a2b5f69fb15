"""Safetensors files written tensor by tensor: the library wants all tensors of a file at once.

A file is eight bytes with the length of a JSON header, that header with the place of each tensor,
and the tensors.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onereward_jax.convert.safetensors_reader import DTYPES

KINDS = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}
ALIGNMENT = 8
"""The tensors begin at a multiple of it."""


@dataclass(frozen=True)
class Shape:
    """A tensor that is to be written.

    Attributes:
      key: its name in the file.
      shape, dtype: of the array.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Of its content."""
        return math.prod(self.shape) * self.dtype.itemsize


def divide(shapes: Iterable[Shape], limit: int) -> list[list[Shape]]:
    """The tensors of each file, in order: a file ends before it grows beyond `limit` bytes.

    A larger tensor gets a file of its own; there is one file at least.
    """
    files: list[list[Shape]] = [[]]
    size = 0
    for shape in shapes:
        if files[-1] and size + shape.bytes > limit:
            files.append([])
            size = 0
        files[-1].append(shape)
        size += shape.bytes
    return files


def write_tensors(path: Path, shapes: Sequence[Shape], tensors: Iterator[np.ndarray]) -> None:
    """Writes a file from its first byte to its last, holding one tensor at a time.

    Args:
      path: of the file.
      shapes: what is written, in this order; wide dtypes first keep all aligned.
      tensors: contiguous arrays of these shapes; as many as there are shapes are taken.

    Raises:
      ValueError: a dtype that is none of weights, or a tensor of another shape or dtype.
    """
    ends = list(itertools.accumulate((shape.bytes for shape in shapes), initial=0))
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    for shape, start, end in zip(shapes, ends, ends[1:]):
        if shape.dtype not in KINDS:
            known = ", ".join(map(str, KINDS))
            raise ValueError(f"{shape.key}: dtype {shape.dtype} is none of {known}")
        header[shape.key] = {
            "dtype": KINDS[shape.dtype],
            "shape": list(shape.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes:
            tensor = next(tensors)
            if tensor.shape != shape.shape or tensor.dtype != shape.dtype:
                raise ValueError(
                    f"{shape.key}: {tensor.dtype} {tensor.shape} is to be written where "
                    f"{shape.dtype} {shape.shape} was announced"
                )
            # numpy has no buffers of bfloat16
            file.write(tensor.reshape(-1).view(np.uint8).data)
            del tensor  # before the next one comes
