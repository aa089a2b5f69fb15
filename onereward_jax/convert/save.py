"""Flax parameters -> Hugging Face safetensors folder, the exact inverse of `load.py`."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.layouts import Layout, check_architecture, statement
from onereward_jax.convert.safetensors_writer import Shape, divide, write_tensors
from onereward_jax.convert.tensor_names import Entry, flat_leaves, plan, unbox
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.gather_layers import layers_on_writer

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
    of several processes all must call; process 0 writes. Memory: on each device its part of a
    layer of a leaf, or with several processes a piece of the layer (`gather_layers`); on the host
    of process 0 a layer twice.

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
    kinds = {
        path: jnp.dtype(leaf.dtype if dtype is None else dtype) for path, leaf in leaves.items()
    }
    # wide ones first, so that all are aligned in their files
    entries.sort(key=lambda entry: -kinds[entry.path].itemsize)
    tensors = _tensors(entries, leaves, kinds)
    if not is_writer():
        for _ in tensors:  # takes part in gathering the leaves
            pass
        return
    if dtype is not None:
        stated = {"dtype", "torch_dtype"} & config.keys()
        config = {**config, **dict.fromkeys(stated, jnp.dtype(dtype).name)}
    write_json(folder / "config.json", config)
    shapes = [
        Shape(key, entry.tensor_shape, kinds[entry.path]) for entry in entries for key in entry.keys
    ]
    _write_shards(folder, layout.basename, divide(shapes, max_shard_bytes), tensors)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file the way the original libraries do: sorted keys, two spaces."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensors(
    entries: Sequence[Entry], leaves: Mapping[str, Any], kinds: Mapping[str, np.dtype]
) -> Iterator[np.ndarray | None]:
    """Tensors in the order of the files, one at a time; None on processes that do not write."""
    for entry in entries:
        layers = layers_on_writer(leaves[entry.path], entry.stacked, kinds[entry.path])
        # unlike a loop, map keeps no layer until it has the next one
        yield from map(functools.partial(_as_published, entry), layers)


def _as_published(entry: Entry, layer: np.ndarray | None) -> np.ndarray | None:
    """One layer of a leaf with the axes and the shape of the file's tensor."""
    if layer is None:
        return None
    tensor = layer.T if entry.flat else layer.transpose(np.argsort(entry.axes))
    return np.ascontiguousarray(tensor).reshape(entry.tensor_shape)


def _write_shards(
    folder: Path, basename: str, shards: Sequence[Sequence[Shape]], tensors: Iterator[np.ndarray]
) -> None:
    """One file, or several and their index."""
    if len(shards) == 1:
        write_tensors(folder / f"{basename}.safetensors", shards[0], tensors)
        return
    weight_map = {}
    for number, shapes in enumerate(shards):
        name = f"{basename}-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / name, shapes, tensors)
        weight_map.update({shape.key: name for shape in shapes})
    total = sum(shape.bytes for shapes in shards for shape in shapes)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / f"{basename}.safetensors.index.json", index)
