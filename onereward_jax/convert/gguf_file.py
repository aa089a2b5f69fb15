"""FLUX in GGUF files (Q8_0, Q4_K_S, ...), read with llama.cpp's package `gguf` (extra `gguf`).

Blocks of rows are made float32 numbers as they are read; names are those of the original release.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onereward_jax.convert.safetensors_reader import StoredTensor, TensorOnDisk

MAGIC = b"GGUF"
ARCHITECTURE = "flux"
_PLAIN = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class GgufTensor:
    """A quantized matrix on disk, in float32.

    Attributes:
      path: the file.
      offset: position of its first byte.
      shape: rows and columns.
      code: its kind of quantization, a number of `gguf.GGMLQuantizationType`.
      row_bytes: bytes of a row.
    """

    path: Path
    offset: int
    shape: tuple[int, int]
    code: int
    row_bytes: int

    kind = "F32"

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice: only its rows are read, and no page stays mapped."""
        from gguf import GGMLQuantizationType, dequantize

        rows, *others = index or (slice(None),)
        start, stop, _ = rows.indices(self.shape[0])
        place = self.offset + start * self.row_bytes
        stored = np.fromfile(self.path, np.uint8, (stop - start) * self.row_bytes, offset=place)
        values = dequantize(stored.reshape(-1, self.row_bytes), GGMLQuantizationType(self.code))
        return values.reshape(stop - start, self.shape[1])[(slice(None), *others)]

    def rows(self, start: int, stop: int) -> GgufTensor:
        """The tensor of these rows only; reads nothing."""
        offset = self.offset + start * self.row_bytes
        return replace(self, offset=offset, shape=(stop - start, self.shape[1]))


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_gguf(path: Path) -> dict[str, TensorOnDisk]:
    """The tensors of a GGUF file, by name; reads its header.

    Raises:
      ModuleNotFoundError: the package gguf is missing.
      ValueError: the file is broken, of another model, or quantized in a way that gguf cannot undo.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = None if field is None else field.contents()
        found = [
            (
                tensor.name,
                tuple(int(size) for size in reversed(tensor.shape)),
                tensor.tensor_type,
                int(tensor.data_offset),
                int(tensor.n_bytes),
            )
            for tensor in reader.tensors
        ]
    except Exception as error:  # the package checks nothing: any error can come of broken bytes
        raise ValueError(f"{path} is truncated or not GGUF: {error}") from error
    if architecture != ARCHITECTURE:
        raise ValueError(f"{path} holds a model {architecture!r}; {ARCHITECTURE!r} expected")
    size, tensors = path.stat().st_size, {}
    for name, shape, quantization, offset, count in found:
        if offset + count > size:
            raise ValueError(f"{path} is truncated: {name} ends beyond the file")
        if quantization.name in _PLAIN:
            tensors[name] = StoredTensor(path, offset, shape, quantization.name)
            continue
        tensor = None
        if len(shape) == 2 and shape[0] and count % shape[0] == 0:
            tensor = GgufTensor(path, offset, shape, int(quantization), count // shape[0])
        if tensor is None or not _is_read(tensor):
            raise ValueError(f"{path}: {name} is {quantization.name} {shape}, which is not read")
        tensors[name] = tensor
    return tensors


def _is_read(tensor: GgufTensor) -> bool:
    """Whether the package can undo this kind of quantization, on one row."""
    try:
        return tensor.rows(0, 1)[()].shape == (1, tensor.shape[1])
    except (NotImplementedError, ValueError):
        return False
