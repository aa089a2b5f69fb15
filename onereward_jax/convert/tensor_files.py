"""Read-only view of the safetensors files of one component folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

DTYPES = ("F64", "F32", "F16", "BF16")


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
    """A JSON object file; the same errors as `read_config`."""
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
    """The weight files of a folder: a single file, or the shards that its index lists.

    Raises:
      FileNotFoundError: no weights, or a listed shard is missing.
    """
    single = folder / f"{basename}.safetensors"
    index = folder / f"{basename}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(f"no weights in {folder}: neither {single.name} nor {index.name}")
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise FileNotFoundError(f"{index} lists {', '.join(missing) or 'no file'}: missing there")
    return [folder / name for name in names]


@contextlib.contextmanager
def open_tensors(folder: Path, basename: str) -> Iterator[dict[str, Any]]:
    """Opens the weight files of a folder; reads nothing but their headers.

    Yields:
      tensor name -> safetensors slice: `get_shape()`, `get_dtype()`, and `[index]`, which reads
      that part from disk.

    Raises:
      FileNotFoundError: see `find_files`.
      ValueError: a file is truncated or not safetensors, or two files hold the same tensor.
    """
    tensors: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for path in find_files(folder, basename):
            try:
                handle = stack.enter_context(safe_open(path, framework="numpy"))
            except SafetensorError as error:
                raise ValueError(f"{path} is truncated or not safetensors: {error}") from error
            for key in handle.keys():
                if key in tensors:
                    raise ValueError(f"{path}: tensor {key} is also in another file of the folder")
                tensors[key] = handle.get_slice(key)
        yield tensors
