"""Flax parameters -> Hugging Face safetensors folder, the exact inverse of `load.py`."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from safetensors.numpy import save_file

from onereward_jax.convert.atomic import atomic_folder
from onereward_jax.convert.layouts import Layout, check_architecture, statement
from onereward_jax.convert.names import Entry, flat_leaves, plan, unbox
from onereward_jax.parallel import MeshFunction, is_writer, mesh_jit, replicated

MAX_SHARD_BYTES = 5 << 30


def save_params(
    folder: str | Path,
    params: Any,
    layout: Layout,
    *,
    config: Mapping[str, Any],
    dtype: Any = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes one component's folder so that the original library opens it.

    The folder appears complete or not at all; an existing one is replaced as a whole. In a run
    of several processes all must call; process 0 writes. Memory: one layer of a leaf on each
    device, one file on the host of process 0.

    Args:
      folder: gets config.json, `<layout.basename>.safetensors` or shards with an index.
      params: the Flax tree, sharded or not.
      layout: the architecture's `Layout`.
      config: what config.json shall say, as the original library writes it; the architecture is
        added where it does not state one.
      dtype: of the written tensors; default: each leaf's own.
      max_shard_bytes: a file is closed before it grows beyond this (a larger tensor gets a file
        of its own).

    Raises:
      ValueError: the config is of another architecture, or leaves that the layout cannot place.
    """
    with atomic_folder(folder) as draft:
        write_params(
            draft, params, layout, config=config, dtype=dtype, max_shard_bytes=max_shard_bytes
        )


def write_params(
    folder: Path,
    params: Any,
    layout: Layout,
    *,
    config: Mapping[str, Any],
    dtype: Any = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """`save_params` into an existing folder, file by file."""
    config = {**statement(layout), **config}
    check_architecture(config, layout, "the config to be written")
    leaves = flat_leaves(unbox(params))
    entries, problems = plan(leaves, layout, config)
    problems += [
        f"{entry.path}: shape {entry.shape} does not flatten {entry.tensor_shape} of the config"
        for entry in entries
        if entry.flat and np.prod(entry.shape) != np.prod(entry.tensor_shape)
    ]
    if problems:
        raise ValueError("\n  ".join([f"cannot write {layout.architecture}:", *problems]))
    tensors = _tensors(entries, leaves, dtype)
    if not is_writer():
        for _ in tensors:  # takes part in gathering the leaves
            pass
        return
    if dtype is not None:
        stated = {"dtype", "torch_dtype"} & config.keys()
        config = {**config, **dict.fromkeys(stated, jnp.dtype(dtype).name)}
    write_json(folder / "config.json", config)
    _write_shards(folder, layout.basename, tensors, max_shard_bytes)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file the way the original libraries do: sorted keys, two spaces."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensors(
    entries: list[Entry], leaves: Mapping[str, Any], dtype: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """(published name, contiguous host array), layer by layer."""
    for entry in entries:
        for key, layer in zip(entry.keys, _layers(leaves[entry.path], entry.stacked, dtype)):
            tensor = layer.T if entry.flat else layer.transpose(np.argsort(entry.axes))
            # safetensors writes the buffer as it lies in memory
            yield key, np.ascontiguousarray(tensor).reshape(entry.tensor_shape)


def _layers(leaf: Any, stacked: bool, dtype: Any) -> Iterator[np.ndarray]:
    """The layers of a stacked leaf, or the leaf itself, one at a time on the host.

    A leaf that is spread over devices is gathered a layer at a time, in the dtype that is written:
    a device holds one layer beside its part of the state, however many processes there are.
    """
    dtype = jnp.dtype(leaf.dtype if dtype is None else dtype)
    spread = isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)
    if not spread or leaf.is_fully_replicated:
        leaf = np.asarray(leaf)
        for layer in leaf if stacked else [leaf]:
            yield layer.astype(dtype)
        return
    pick = _layer_function(leaf.sharding.mesh, stacked, dtype)
    for number in range(leaf.shape[0] if stacked else 1):
        yield np.asarray(pick(leaf, np.int32(number)).addressable_data(0))


@functools.cache
def _layer_function(mesh: Mesh, stacked: bool, dtype: jnp.dtype) -> MeshFunction:
    """(leaf, number) -> one layer of it, whole on every device."""

    def layer(leaf: jax.Array, number: jax.Array) -> jax.Array:
        picked = jax.lax.dynamic_index_in_dim(leaf, number, 0, keepdims=False) if stacked else leaf
        return picked.astype(dtype)

    return mesh_jit(layer, mesh, out_shardings=replicated(mesh))


def _write_shards(
    folder: Path, basename: str, tensors: Iterator[tuple[str, np.ndarray]], limit: int
) -> None:
    """One file, or several and their index; the names need the number of shards, so come last."""
    shards: list[list[str]] = []
    pending: dict[str, np.ndarray] = {}
    size = total = 0

    def flush() -> None:
        path = folder / f"shard-{len(shards)}"
        save_file(pending, path, metadata={"format": "pt"})
        # safetensors makes the file readable by its owner only
        shutil.copymode(folder / "config.json", path)
        shards.append(list(pending))
        pending.clear()

    for key, tensor in tensors:
        if pending and size + tensor.nbytes > limit:
            flush()
            size = 0
        pending[key] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()

    if len(shards) == 1:
        (folder / "shard-0").rename(folder / f"{basename}.safetensors")
        return
    weight_map = {}
    for number, keys in enumerate(shards):
        name = f"{basename}-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / name)
        weight_map.update(dict.fromkeys(keys, name))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / f"{basename}.safetensors.index.json", index)
