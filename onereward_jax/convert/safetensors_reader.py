"""Read-only view of the safetensors files of one component folder.

The safetensors library validates the files. The tensors are then memory-mapped one by one, because
the library's handles keep the whole file mapped, and its pages resident, until they are closed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from onereward_jax.common.listing import first_of, listed

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
}
"""Supported weight dtypes: safetensors' name -> numpy dtype."""
STORED = {**DTYPES, "U8": np.uint8}
"""The same, with that of notes stored as text."""


@runtime_checkable
class TensorOnDisk(Protocol):
    """What a leaf is read from: a stored tensor, or one computed from stored ones (`tensor_views`).

    Attributes:
      shape: its shape.
      kind: dtype of what is read, by safetensors' name.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def kind(self) -> str:
        """Its dtype, by safetensors' name."""

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice: `()` for all, or a tuple that begins with a slice of rows."""

    def rows(self, start: int, stop: int) -> TensorOnDisk:
        """The tensor of these rows only; reads nothing."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk; not loaded into memory.

    Attributes:
      path: the safetensors file.
      offset: position of its first byte in the file.
      shape: its shape.
      kind: its dtype, by safetensors' name.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    kind: str

    def __getitem__(self, index: Any) -> np.ndarray:
        """A slice, as a view of the memory-mapped file: reading the view reads from disk.

        Pages stay resident as long as the view is alive.
        """
        dtype = np.dtype(STORED[self.kind])
        if 0 in self.shape:
            return np.empty(self.shape, dtype)[index]
        size = dtype.itemsize * math.prod(self.shape)
        mapped = np.memmap(self.path, np.uint8, "r", self.offset, (size,))
        return np.asarray(mapped.view(np.ndarray).view(dtype).reshape(self.shape)[index])

    def rows(self, start: int, stop: int) -> StoredTensor:
        """The tensor of these rows only; reads nothing."""
        row_bytes = np.dtype(STORED[self.kind]).itemsize * math.prod(self.shape[1:])
        shape = (stop - start, *self.shape[1:])
        return replace(self, offset=self.offset + start * row_bytes, shape=shape)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a component folder.

    Raises:
      FileNotFoundError: no such folder, or no config.json in it.
      ValueError: the file is not a JSON object.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"model folder {folder} does not exist")
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises as `read_config`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers of 5000 digits
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def find_files(folder: Path, basename: str) -> list[Path]:
    """The weight files of a folder: a single file, or the shards listed in its index.

    Files of a variant, `<basename>.fp16.safetensors`, are taken where there are no others.

    Raises:
      FileNotFoundError: no weights, or a listed shard is missing.
      ValueError: the index is unreadable, or there are several variants.
    """
    single = folder / f"{basename}.safetensors"
    if single.is_file():
        return [single]
    index = find_index(folder, basename)
    if index is None:
        return [_only_variant(folder, basename)]
    names = sorted(set(_weight_map(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index} lists {', '.join(first_of(missing))}, which do not exist")
    return [folder / name for name in names]


def find_index(folder: Path, basename: str) -> Path | None:
    """The index of a folder's shards, or that of its only variant; None if it has none.

    Raises:
      ValueError: there are several variants.
    """
    index = folder / f"{basename}.safetensors.index.json"
    if index.is_file():
        return index
    variants = sorted(folder.glob(f"{basename}.safetensors.index.*.json"))
    if len(variants) > 1:
        raise ValueError(_several(folder, variants))
    return variants[0] if variants else None


def _only_variant(folder: Path, basename: str) -> Path:
    variants = sorted(folder.glob(f"{basename}.*.safetensors"))
    if len(variants) > 1:
        raise ValueError(_several(folder, variants))
    if variants:
        return variants[0]
    single = f"{basename}.safetensors"
    message = f"no weights in {folder}: neither {single} nor {single}.index.json"
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        message += f" ({pickles[0]} is a pickle, which can run code: convert it to safetensors)"
    raise FileNotFoundError(message)


def _several(folder: Path, variants: Sequence[Path]) -> str:
    names = ", ".join(first_of([path.name for path in variants]))
    return f"{folder} holds several variants ({names}): keep one of them"


def find_tensors(folder: Path, basename: str) -> dict[str, StoredTensor]:
    """All tensors of a folder's weight files; reads only the headers.

    Raises:
      FileNotFoundError: see `find_files`.
      ValueError: a file is truncated or not safetensors, two files have the same tensor, or the
        index does not match the shards (all differences are listed).
    """
    tensors: dict[str, StoredTensor] = {}
    paths = find_files(folder, basename)
    for path in paths:
        for key, tensor in read_header(path)[0].items():
            if key in tensors:
                raise ValueError(f"{path}: tensor {key} is also in another file of the folder")
            tensors[key] = tensor
    if paths != [folder / f"{basename}.safetensors"]:
        index = find_index(folder, basename)
        if index is not None:  # a variant in one file has none
            _check_index(index, tensors)
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name, from an index file."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map")
    for key, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: the file of {key} is {name!r}, which is not a file name")
    return weight_map


def _check_index(index: Path, tensors: dict[str, StoredTensor]) -> None:
    weight_map = _weight_map(index)
    problems = [
        f"{key}: listed in {name}, but not in that file"
        for key, name in sorted(weight_map.items())
        if key not in tensors or tensors[key].path.name != name
    ]
    problems += [
        f"{key}: in {tensors[key].path.name}, but not in the index"
        for key in sorted(tensors.keys() - weight_map.keys())
    ]
    if problems:
        raise ValueError(f"{index} does not match its shards:" + listed(problems))


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of one file by name, and the texts of its metadata.

    Raises:
      ValueError: it is truncated or not safetensors.
    """
    broken = f"{path} is truncated or not safetensors"
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{broken}: {error}") from error
    # Format: 8 bytes with the length of a JSON header, the header, the tensors.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{broken}: {error}") from error
    metadata = header.pop("__metadata__", None) or {}
    tensors = {
        key: StoredTensor(
            path, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]), entry["dtype"]
        )
        for key, entry in header.items()
    }
    return tensors, metadata


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in result if names.count(name) > 1)
        raise ValueError(f"{twice} is in the header twice")
    return result
