"""Read-only view of the safetensors files of one component folder.

The safetensors library validates the files. The tensors are then memory-mapped one by one, because
the library's handles keep the whole file mapped, and its pages resident, until they are closed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from onereward_jax.common.listing import first_of, listed

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
"""Supported weight dtypes: safetensors' name -> numpy dtype."""


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
        dtype = np.dtype(DTYPES[self.kind])
        if 0 in self.shape:
            return np.empty(self.shape, dtype)[index]
        size = dtype.itemsize * math.prod(self.shape)
        mapped = np.memmap(self.path, np.uint8, "r", self.offset, (size,))
        return mapped.view(np.ndarray).view(dtype).reshape(self.shape)[index]


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
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def find_files(folder: Path, basename: str) -> list[Path]:
    """The weight files of a folder: a single file, or the shards listed in its index.

    Raises:
      FileNotFoundError: no weights, or a listed shard is missing.
      ValueError: the index is unreadable.
    """
    single = folder / f"{basename}.safetensors"
    index = _index_path(folder, basename)
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(f"no weights in {folder}: neither {single.name} nor {index.name}")
    names = sorted(set(_weight_map(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index} lists {', '.join(first_of(missing))}, which do not exist")
    return [folder / name for name in names]


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
        for key, tensor in _read_header(path).items():
            if key in tensors:
                raise ValueError(f"{path}: tensor {key} is also in another file of the folder")
            tensors[key] = tensor
    if paths != [folder / f"{basename}.safetensors"]:
        _check_index(_index_path(folder, basename), tensors)
    return tensors


def _index_path(folder: Path, basename: str) -> Path:
    return folder / f"{basename}.safetensors.index.json"


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


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, by name."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors: {error}") from error
    # Format: 8 bytes with the length of a JSON header, the header, the tensors.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        key: StoredTensor(
            path, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]), entry["dtype"]
        )
        for key, entry in header.items()
    }
