"""Tensors that are computed from stored ones as they are read, a block of rows at a time.

A single file of FLUX holds other tensors than a diffusers folder: fused, with two halves swapped,
or scaled to 8 bits. These views have the interface of `StoredTensor` (`TensorOnDisk`), so that
`load.py` reads the parts it needs of them, and nothing else is read or held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onereward_jax.convert.safetensors_reader import DTYPES, StoredTensor, TensorOnDisk


@dataclass(frozen=True)
class ScaledTensor:
    """An 8-bit tensor times its scale, in float32.

    Attributes:
      values: the 8-bit tensor.
      scale: float32, one number for the tensor or one per row ([rows] or [rows, 1]).
    """

    values: StoredTensor
    scale: StoredTensor

    kind = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.values.shape

    @property
    def scales_rows(self) -> bool:
        """Whether each row has a scale of its own."""
        return math.prod(self.scale.shape) > 1

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice; the scale is read each time, so nothing stays in memory."""
        part = self.values[index].astype(np.float32)
        scale = self.scale[()].astype(np.float32).reshape(-1)
        if self.scales_rows:
            scale = scale[index[0]] if index else scale
            return part * scale.reshape(-1, *[1] * (part.ndim - 1))
        return part * scale[0]

    def rows(self, start: int, stop: int) -> ScaledTensor:
        """The tensor of these rows only; reads nothing."""
        scale = self.scale.rows(start, stop) if self.scales_rows else self.scale
        return ScaledTensor(self.values.rows(start, stop), scale)


@dataclass(frozen=True)
class StackedRows:
    """Tensors one below the other.

    Attributes:
      parts: tensors of equal trailing shape.
    """

    parts: tuple[TensorOnDisk, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all parts together."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def kind(self) -> str:
        """The dtype of the parts, or float32 (float64) where they differ."""
        kinds = {part.kind for part in self.parts}
        if len(kinds) > 1:
            return "F64" if "F64" in kinds else "F32"
        return kinds.pop()

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice, read from the parts that it meets."""
        rows, *others = index or (slice(None),)
        start, stop, _ = rows.indices(self.shape[0])
        read, first = [], 0
        for part in self.parts:
            low, high = max(start, first), min(stop, first + part.shape[0])
            if low < high:
                block = part[(slice(low - first, high - first), *others)]
                read.append(block.astype(DTYPES[self.kind], copy=False))
            first += part.shape[0]
        if not read:
            return self.parts[0][(slice(0, 0), *others)]
        return read[0] if len(read) == 1 else np.concatenate(read)

    def rows(self, start: int, stop: int) -> StackedRows:
        """The tensor of these rows only; reads nothing."""
        kept, first = [], 0
        for part in self.parts:
            low, high = max(start, first), min(stop, first + part.shape[0])
            if low < high:
                kept.append(part.rows(low - first, high - first))
            first += part.shape[0]
        return StackedRows(tuple(kept))


def halves_swapped(tensor: TensorOnDisk) -> StackedRows:
    """The tensor with its second half of rows first; its number of rows is even."""
    rows = tensor.shape[0]
    half = rows // 2
    return StackedRows((tensor.rows(half, rows), tensor.rows(0, half)))
