"""Writes safetensors files one tensor at a time; the library needs all tensors of a file at once.

A file is 8 bytes with the length of a JSON header, the header with the offsets of each tensor, and
the tensors.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from onereward_jax.convert.safetensors_reader import STORED

KINDS = {np.dtype(dtype): kind for kind, dtype in STORED.items()}
ALIGNMENT = 8
"""The tensor data starts at a multiple of this many bytes."""


@dataclass(frozen=True)
class Shape:
    """Name, shape and dtype of a tensor to write.

    Attributes:
      key: its name in the file.
      shape, dtype: shape and dtype of the array.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Size of its content."""
        return math.prod(self.shape) * self.dtype.itemsize


def divide(shapes: Iterable[Shape], limit: int) -> list[list[Shape]]:
    """Splits tensors, in order, into files of at most `limit` bytes.

    A tensor larger than `limit` gets a file of its own. Returns at least one file.
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


def write_tensors(
    path: Path,
    shapes: Sequence[Shape],
    tensors: Iterator[np.ndarray],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a file sequentially, with one tensor in memory at a time.

    Args:
      path: the file.
      shapes: the tensors, in file order; wide dtypes first keep all of them aligned.
      tensors: yields contiguous arrays of these shapes; `len(shapes)` are taken.
      metadata: texts for the header.

    Raises:
      ValueError: an unsupported dtype, or a tensor of another shape or dtype than in `shapes`.
    """
    ends = list(itertools.accumulate((shape.bytes for shape in shapes), initial=0))
    header: dict[str, dict] = {"__metadata__": {"format": "pt", **metadata}}
    for shape, start, end in zip(shapes, ends, ends[1:]):
        if shape.dtype not in KINDS:
            known = ", ".join(map(str, KINDS))
            raise ValueError(f"{shape.key}: dtype {shape.dtype} is not one of {known}")
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
                    f"{shape.key}: got {tensor.dtype} {tensor.shape}, expected "
                    f"{shape.dtype} {shape.shape}"
                )
            # numpy does not export bfloat16 buffers
            file.write(tensor.reshape(-1).view(np.uint8).data)
            del tensor  # free it before the next one is made
