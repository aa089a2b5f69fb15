"""Flax parameters -> Hugging Face safetensors folder, the exact inverse of `load.py`."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from onereward_jax.common.listing import listed
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
    """Writes one component's folder so that the original library can load it.

    The write is atomic; an existing folder is replaced as a whole. All processes must call it;
    process 0 writes. Extra memory: on each device its shard of one layer of a leaf, or with
    multiple processes a piece of the layer (`gather_layers`); on the host of process 0, two layers.

    Args:
      folder: gets config.json and `<layout.basename>.safetensors`, or shards with an index.
      params: the Flax parameter tree, sharded or not.
      layout: the architecture's `Layout`.
      config: content of config.json, as the original library writes it; the architecture is added
        if missing.
      dtype: dtype of the written tensors; None: each leaf's own.
      max_shard_bytes: maximum size of a file (a larger tensor gets a file of its own).

    Raises:
      ValueError: the config has another architecture, or the layout cannot map a leaf.
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
    """`save_params` into an existing folder, not atomic."""
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
        raise ValueError(f"cannot write {layout.architecture}:" + listed(problems))
    dtypes = {
        path: jnp.dtype(leaf.dtype if dtype is None else dtype) for path, leaf in leaves.items()
    }
    # Wide dtypes first, so that all tensors are aligned in their files.
    entries.sort(key=lambda entry: -dtypes[entry.path].itemsize)
    tensors = _tensors(entries, leaves, dtypes)
    if not is_writer():
        for _ in tensors:  # takes part in the all-gathers
            pass
        return
    if dtype is not None:
        stated = {"dtype", "torch_dtype"} & config.keys()
        config = {**config, **dict.fromkeys(stated, jnp.dtype(dtype).name)}
    write_json(folder / "config.json", config)
    shapes = [
        Shape(key, entry.tensor_shape, dtypes[entry.path])
        for entry in entries
        for key in entry.keys
    ]
    write_shards(folder, layout.basename, divide(shapes, max_shard_bytes), tensors)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file like the original libraries: sorted keys, indent 2."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensors(
    entries: Sequence[Entry], leaves: Mapping[str, Any], dtypes: Mapping[str, np.dtype]
) -> Iterator[np.ndarray | None]:
    """Tensors in file order, one at a time; None on processes other than 0."""
    for entry in entries:
        layers = layers_on_writer(leaves[entry.path], entry.stacked, dtypes[entry.path])
        # Unlike a loop variable, map does not keep a layer alive while the next one is made.
        yield from map(functools.partial(as_published, entry), layers)


def as_published(entry: Entry, layer: np.ndarray | None) -> np.ndarray | None:
    """One layer of a leaf, with the axes and shape of the file's tensor; None stays None."""
    if layer is None:
        return None
    tensor = layer.T if entry.flat else layer.transpose(np.argsort(entry.axes))
    return np.ascontiguousarray(tensor).reshape(entry.tensor_shape)


def write_shards(
    folder: Path, basename: str, shards: Sequence[Sequence[Shape]], tensors: Iterator[np.ndarray]
) -> None:
    """Writes one file, or multiple files and their index; see `write_tensors`."""
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
