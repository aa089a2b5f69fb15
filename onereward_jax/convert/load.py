"""Hugging Face safetensors folder -> Flax parameters: strict, and lazy per shard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onereward_jax.convert.layouts import Layout, check_architecture
from onereward_jax.convert.names import Entry, flat_leaves, plan, published_name, unbox
from onereward_jax.convert.tensor_files import DTYPES, open_tensors, read_config


def load_params(
    folder: str | Path, abstract_params: Any, layout: Layout, *, dtype: Any = None
) -> Any:
    """Parameters of one component, read from its Hugging Face folder.

    Strict: every tensor of the files is used or ignored by the layout, every leaf is filled,
    every shape agrees. Lazy: where a leaf carries a sharding, each process reads only the slices
    of its own devices, so no host ever holds a full copy.

    Args:
      folder: holds config.json and one safetensors file, or shards and their index.
      abstract_params: tree of `jax.ShapeDtypeStruct` (possibly in Linen's partitioning boxes, as
        `jax.eval_shape` of an init gives it), with `.sharding` where the array is to be sharded;
        the others go to the default device.
      layout: the architecture's `Layout`.
      dtype: of the result; default: the dtype of each abstract leaf.

    Returns:
      The tree of `abstract_params`, without boxes, with arrays.

    Raises:
      FileNotFoundError: the folder, its config.json or a weight file is missing.
      ValueError: another architecture, an unreadable file, or any mismatch of names and shapes;
        all mismatches are listed at once.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_architecture(config, layout, f"{folder}/config.json")
    abstract_params = unbox(abstract_params)
    leaves = flat_leaves(abstract_params)
    with open_tensors(folder, layout.basename) as files:
        entries, problems = plan(leaves, layout, config)
        tensors, ambiguous = _publish(files, layout)
        problems += ambiguous + _mismatches(entries, tensors)
        if problems:
            raise ValueError("\n  ".join([f"weights in {folder} do not fit the model:", *problems]))
        arrays = [_load_leaf(entry, leaves[entry.path], tensors, dtype) for entry in entries]
    return jax.tree.unflatten(jax.tree.structure(abstract_params), arrays)


def _publish(files: Mapping[str, Any], layout: Layout) -> tuple[dict[str, Any], list[str]]:
    """File tensors by published name, without the ignored ones; and tied copies that differ."""
    tensors: dict[str, Any] = {}
    problems = []
    for key in files:
        name = published_name(key, layout)
        if re.search(layout.ignored, name):
            continue
        if name in tensors and tensors[name].get_shape() != files[key].get_shape():
            problems.append(f"{key}: another shape than its tied copy {name}")
        if name not in tensors or key == name:
            tensors[name] = files[key]
    return tensors, problems


def _mismatches(entries: Sequence[Entry], tensors: Mapping[str, Any]) -> list[str]:
    """One sentence for every missing, unused, unreadable or differently shaped tensor."""
    problems = []
    wanted = set()
    for entry in entries:
        wanted.update(entry.keys)
        if entry.flat and entry.shape[0] != int(np.prod(entry.tensor_shape[1:])):
            problems.append(
                f"{entry.path}: shape {entry.shape} does not flatten the config's "
                f"{entry.tensor_shape}"
            )
        for key in entry.keys:
            if key not in tensors:
                problems.append(f"{key}: missing in the files (for {entry.path})")
                continue
            found, dtype = tuple(tensors[key].get_shape()), tensors[key].get_dtype()
            if found != entry.tensor_shape:
                problems.append(f"{key}: shape {found} in the files, expected {entry.tensor_shape}")
            if dtype not in DTYPES:
                problems.append(f"{key}: dtype {dtype} is none of {', '.join(DTYPES)}")
    unused = sorted(tensors.keys() - wanted)
    return problems + [f"{key}: in the files, but not in the model" for key in unused]


def _load_leaf(
    entry: Entry,
    leaf: jax.ShapeDtypeStruct | jax.Array,
    tensors: Mapping[str, Any],
    dtype: Any,
) -> jax.Array:
    """One array, on the leaf's sharding or else on the default device."""
    target = jnp.dtype(leaf.dtype if dtype is None else dtype)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return jnp.asarray(read_leaf(entry, tensors, (slice(None),) * len(entry.shape), target))

    parts: dict[Any, np.ndarray] = {}  # devices that hold replicas share one read

    def part(index: tuple[slice, ...]) -> np.ndarray:
        which = tuple((piece.start, piece.stop) for piece in index)
        if which not in parts:
            parts[which] = read_leaf(entry, tensors, index, target)
        return parts[which]

    return jax.make_array_from_callback(entry.shape, sharding, part)


def read_leaf(
    entry: Entry, tensors: Mapping[str, Any], index: tuple[slice, ...], dtype: np.dtype
) -> np.ndarray:
    """`leaf[index]` of a Flax leaf, reading from disk only what the index covers.

    Args:
      entry: the leaf's place in the checkpoint.
      tensors: published name -> open safetensors slice.
      index: one slice per axis of the leaf, the layer axis included.
      dtype: of the result.
    """
    if not entry.stacked:
        return np.ascontiguousarray(_read_tensor(entry, tensors[entry.keys[0]], index), dtype)
    keys = entry.keys[index[0]]
    sizes = [len(range(*piece.indices(n))) for piece, n in zip(index[1:], entry.shape[1:])]
    result = np.empty((len(keys), *sizes), dtype)
    for layer, key in enumerate(keys):
        result[layer] = _read_tensor(entry, tensors[key], index[1:])
    return result


def _read_tensor(entry: Entry, tensor: Any, index: tuple[slice, ...]) -> np.ndarray:
    """One layer's part of a leaf: slice in the file's axes, then view it in ours."""
    file_index = [slice(None)] * len(index)
    for piece, axis in zip(index, entry.axes):
        file_index[axis] = piece
    if entry.flat:
        rows = tensor[(file_index[0],)]
        return rows.reshape(rows.shape[0], -1)[:, file_index[1]].T
    return tensor[tuple(file_index)].transpose(entry.axes)
