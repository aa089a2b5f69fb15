"""Hugging Face safetensors folder, or a FLUX file -> Flax parameters: strict, lazy per shard.

Host memory in addition to the finished arrays: one device's shard of one leaf, plus `BLOCK_BYTES`
of the file. (JAX frees the previous shard at its next call.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from onereward_jax.common.listing import listed
from onereward_jax.convert.layouts import Layout
from onereward_jax.convert.model_index import component_config
from onereward_jax.convert.safetensors_reader import DTYPES, TensorOnDisk, find_tensors
from onereward_jax.convert.single_file import read_single_file
from onereward_jax.convert.tensor_names import Entry, flat_leaves, plan, published_name, unbox
from onereward_jax.convert.tied_copies import same_values

BLOCK_BYTES = 32 << 20
"""Approximate size of the blocks in which a tensor is read."""


class NotFinite(ValueError):
    """A weight is NaN or infinite."""


def load_params(
    folder: str | Path, abstract_params: Any, layout: Layout, *, dtype: Any = None
) -> Any:
    """Loads the parameters of one component from its Hugging Face folder, or a transformer's file.

    Strict: every tensor in the files is used or ignored by the layout, every leaf is filled, all
    shapes match. Lazy: for sharded leaves, each process reads only the slices of its own devices,
    one device and one leaf at a time, so no host ever holds a full leaf or model.

    Args:
      folder: has config.json and one safetensors file, or shards and their index; or a single
        file of FLUX's transformer (`single_file`).
      abstract_params: pytree of `jax.ShapeDtypeStruct` (possibly in Linen's partitioning boxes, as
        from `jax.eval_shape` of an init), with `.sharding` on leaves to shard; the others go to
        the default device.
      layout: the architecture's `Layout`.
      dtype: dtype of the result; None: the dtype of each abstract leaf.

    Returns:
      The pytree of `abstract_params`, without boxes, with arrays.

    Raises:
      FileNotFoundError: the folder, its config.json or a weight file is missing.
      ValueError: another architecture, an unreadable file, or any mismatch of names and shapes,
        which are listed together; or a weight that is not finite.
    """
    folder = Path(folder)
    if folder.is_file():
        file = read_single_file(folder)
        config, files = {}, file.tensors
        for note in file.notes:
            logging.warning("%s: %s", folder, note)
    else:
        config, files = component_config(folder, layout), find_tensors(folder, layout.basename)
    abstract_params = unbox(abstract_params)
    leaves = flat_leaves(abstract_params)
    entries, tensors = fit_tensors(files, leaves, layout, config, str(folder))
    try:
        arrays = [_load_leaf(entry, leaves[entry.path], tensors, dtype) for entry in entries]
    except NotFinite as error:
        raise ValueError(f"weights in {folder}: {error}") from error
    return jax.tree.unflatten(jax.tree.structure(abstract_params), arrays)


def fit_tensors(
    files: Mapping[str, TensorOnDisk],
    leaves: Mapping[str, Any],
    layout: Layout,
    config: Mapping[str, Any],
    where: str,
) -> tuple[list[Entry], dict[str, TensorOnDisk]]:
    """What each leaf is read from: its entry, and the tensors by published name.

    Args:
      files: tensor name, in any known spelling -> tensor.
      leaves: path -> leaf of the model, see `flat_leaves`.
      layout, config: the architecture's `Layout`, and config.json.
      where: folder or file of the tensors, for the message.

    Raises:
      ValueError: names or shapes differ from the model's; at most 20 differences are listed.
    """
    entries, problems = plan(leaves, layout, config)
    expected = {key for entry in entries for key in entry.keys}
    tensors, ambiguous = _publish(files, layout, expected)
    problems += ambiguous + _mismatches(entries, tensors)
    unused = sorted(tensors.keys() - expected)
    problems += [f"{key}: in the files, but not in the model" for key in unused]
    if problems:
        raise ValueError(f"weights in {where} do not fit the model:" + listed(problems))
    return entries, tensors


def _publish(
    files: Mapping[str, TensorOnDisk], layout: Layout, expected: Set[str]
) -> tuple[dict[str, TensorOnDisk], list[str]]:
    """File tensors by published name, without ignored ones; and errors for tied copies."""
    tensors: dict[str, TensorOnDisk] = {}
    problems = []
    for key in files:
        name = published_name(key, layout)
        if re.search(layout.ignored, name) or name in layout.tied - expected:
            continue
        if name in tensors and name in expected and _differ(tensors[name], files[key]):
            problems.append(f"{key}: it differs from its tied copy {name}")
        if name not in tensors or key == name:
            tensors[name] = files[key]
    return tensors, problems


def _differ(one: TensorOnDisk, other: TensorOnDisk) -> bool:
    readable = one.kind in DTYPES and other.kind in DTYPES  # otherwise refused later
    return one.shape != other.shape or (readable and not same_values(one, other))


def _mismatches(entries: Sequence[Entry], tensors: Mapping[str, TensorOnDisk]) -> list[str]:
    """One error message for every missing, unreadable or mis-shaped tensor."""
    problems = []
    for entry in entries:
        if entry.flat and entry.shape[0] != int(np.prod(entry.tensor_shape[1:])):
            problems.append(
                f"{entry.path}: shape {entry.shape} does not flatten the config's "
                f"{entry.tensor_shape}"
            )
        for key in entry.keys:
            if key not in tensors:
                problems.append(f"{key}: missing in the files (for {entry.path})")
                continue
            found, dtype = tensors[key].shape, tensors[key].kind
            if found != entry.tensor_shape:
                problems.append(f"{key}: shape {found} in the files, expected {entry.tensor_shape}")
            if dtype not in DTYPES:
                problems.append(f"{key}: dtype {dtype} is none of {', '.join(DTYPES)}")
    return problems


def _load_leaf(
    entry: Entry,
    leaf: jax.ShapeDtypeStruct | jax.Array,
    tensors: Mapping[str, TensorOnDisk],
    dtype: Any,
) -> jax.Array:
    """Loads one array, with the leaf's sharding or on the default device."""
    target = jnp.dtype(leaf.dtype if dtype is None else dtype)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return jnp.asarray(read_leaf(entry, tensors, (slice(None),) * len(entry.shape), target))

    holders_of: dict[tuple[tuple[int | None, int | None], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(entry.shape).items():
        bounds = tuple((piece.start, piece.stop) for piece in index)
        holders_of.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, holders in holders_of.items():
        index = tuple(slice(*bound) for bound in bounds)
        arrays += _load_part(entry, tensors, index, target, holders)
    return jax.make_array_from_single_device_arrays(entry.shape, sharding, arrays)


def _load_part(
    entry: Entry,
    tensors: Mapping[str, TensorOnDisk],
    index: tuple[slice, ...],
    dtype: np.dtype,
    devices: Sequence[jax.Device],
) -> list[jax.Array]:
    """Loads `leaf[index]` onto each of the devices.

    Transfers run in the background and keep their source alive, so block until they are done. The
    host copy is local to this function, so it is freed before the next one is read.
    """
    part = read_leaf(entry, tensors, index, dtype)
    return jax.block_until_ready([jax.device_put(part, device) for device in devices])


def read_leaf(
    entry: Entry,
    tensors: Mapping[str, TensorOnDisk],
    index: tuple[slice, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Reads `leaf[index]` of a Flax leaf; reads from disk only what the index covers.

    Args:
      entry: the leaf's entry in the checkpoint.
      tensors: published name -> tensor in a file.
      index: one slice per axis of the leaf, including the layer axis.
      dtype: dtype of the result.
    """
    shape = tuple(len(range(*piece.indices(n))) for piece, n in zip(index, entry.shape))
    result = np.empty(shape, dtype)
    keys = entry.keys[index[0]] if entry.stacked else entry.keys
    for layer, key in enumerate(keys):
        part, inner = (result[layer, ...], index[1:]) if entry.stacked else (result, index)
        _read_layer(entry, key, tensors[key], inner, part)
    return result


def _read_layer(
    entry: Entry, key: str, tensor: TensorOnDisk, index: tuple[slice, ...], out: np.ndarray
) -> None:
    """Fills `out` with one layer's part of a leaf, in blocks along the file's first axis."""
    if not index:
        out[...] = tensor[()]
        _check_finite(key, tensor, out)
        return
    slices = [slice(None)] * len(index)  # per axis of the file's tensor
    for piece, axis in zip(index, entry.axes):
        slices[axis] = piece
    first = entry.axes.index(0)  # the leaf's axis that corresponds to the file's first axis
    row_bytes = out.dtype.itemsize * int(np.prod(entry.tensor_shape[1:]))
    for done, rows in _blocks(slices[0], entry.tensor_shape[0], row_bytes):
        if entry.flat:
            block = tensor[(rows,)]
            block = block.reshape(len(block), -1)[:, slices[1]].T
        else:
            block = tensor[(rows, *slices[1:])].transpose(entry.axes)
        target = out[(slice(None),) * first + (done,)]
        target[...] = block
        _check_finite(key, tensor, target)


def _check_finite(key: str, tensor: TensorOnDisk, block: np.ndarray) -> None:
    """Raises NotFinite if a block, as it was read and cast, has NaN or infinity."""
    # The sum is: float64 cannot overflow here, and nothing is copied.
    if not np.isfinite(np.sum(block, dtype=np.float64)):
        count = np.sum(~np.isfinite(block.astype(np.float64)))
        raise NotFinite(
            f"{key} ({tensor.kind} in the file) has {count} weights that are NaN or infinite as "
            f"{block.dtype}: the file is damaged, or the training diverged"
        )


def _blocks(rows: slice, size: int, row_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Splits `rows` of `size` into blocks of about `BLOCK_BYTES`: (in the result, in the file)."""
    start, stop, _ = rows.indices(size)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for row in range(start, stop, step):
        end = min(row + step, stop)
        yield slice(row - start, end - start), slice(row, end)
