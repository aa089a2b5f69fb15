"""Gathers sharded parameters to host memory of process 0, one layer at a time.

If one process has all devices, each device slices its shard of the layer and the host assembles
the shards. Otherwise the shards are all-gathered first, a few rows of each at a time: an
all-gather of a whole layer takes two or three times its memory (libtpu 0.0.42.1, float32).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from onereward_jax.parallel.distributed import is_writer
from onereward_jax.parallel.jit import MeshFunction, mesh_jit

PIECE_BYTES = 32 << 20
"""Upper bound on one all-gather, unless a single row of each shard is larger."""

Axes = tuple[tuple[str, ...], ...]
"""For each dimension of an array, the mesh axes that shard it, in order."""


def layers_on_writer(leaf: Any, stacked: bool, dtype: Any) -> Iterator[np.ndarray | None]:
    """The full layers of a stacked leaf, or the full leaf itself, in `dtype`.

    All processes that hold shards of the leaf must iterate over all layers. No layer stays on the
    devices, nor on the host once the caller drops it.

    Args:
      leaf: a JAX or numpy array.
      stacked: axis 0 is the layer axis.
      dtype: dtype of the result.

    Yields:
      A numpy array on process 0; None on the others.

    Raises:
      ValueError: the layer axis is sharded.
    """
    if not isinstance(leaf, jax.Array):
        for layer in np.asarray(leaf) if stacked else [np.asarray(leaf)]:
            yield layer.astype(dtype, copy=False) if is_writer() else None
        return
    one = _gathered if not (leaf.is_fully_addressable or leaf.is_fully_replicated) else _fetched
    for number in range(leaf.shape[0] if stacked else 1):
        # Not assigned to a variable: it would stay alive while the next layer is gathered.
        yield one(leaf, number, stacked, np.dtype(dtype))


def part_function(
    sharding: jax.sharding.Sharding, shape: tuple[int, ...], stacked: bool, dtype: np.dtype
) -> MeshFunction | Any:
    """(leaf, index) -> the layer at that index, sharded like the leaf.

    Args:
      sharding, shape: sharding and shape of the leaf.
      stacked, dtype: see `layers_on_writer`.

    Raises:
      ValueError: the layer axis is sharded.
    """
    return _function(sharding, shape, stacked, dtype, None)


def piece_function(
    sharding: NamedSharding, shape: tuple[int, ...], stacked: bool, dtype: np.dtype
) -> tuple[MeshFunction, int]:
    """(leaf, index, start) -> rows of each shard of a layer, [shards, rows, ...], replicated.

    Args:
      sharding, shape: sharding and shape of the leaf.
      stacked, dtype: see `layers_on_writer`.

    Returns:
      The function, and the number of rows of each shard that it takes from `start`.

    Raises:
      ValueError: the layer axis is sharded.
    """
    part = sharding.shard_shape(shape)[stacked:]
    parts = math.prod(shape[stacked:]) // math.prod(part)
    row = parts * math.prod(part[1:]) * dtype.itemsize
    rows = min(part[0], max(1, PIECE_BYTES // row))
    return _function(sharding, shape, stacked, dtype, rows), rows


@functools.cache
def _function(
    sharding: jax.sharding.Sharding,
    shape: tuple[int, ...],
    stacked: bool,
    dtype: np.dtype,
    rows: int | None,
) -> MeshFunction | Any:
    """Cached by shape: in a multi-process run, the first call of each function is a barrier."""

    def part(leaf: jax.Array, number: jax.Array) -> jax.Array:
        picked = jax.lax.dynamic_index_in_dim(leaf, number, 0, keepdims=False) if stacked else leaf
        return picked.astype(dtype)

    if not isinstance(sharding, NamedSharding):
        return jax.jit(part)
    mesh, axes = sharding.mesh, _axes(sharding, len(shape))
    if stacked and axes[0]:
        raise ValueError(f"the layer axis of a leaf is sharded over {axes[0]}")
    leaf, number, inner = PartitionSpec(*axes), PartitionSpec(), axes[stacked:]

    def piece(leaf: jax.Array, number: jax.Array, start: jax.Array) -> jax.Array:
        cut = jax.lax.dynamic_slice_in_dim(leaf, start, rows, int(stacked))
        return jax.lax.all_gather(part(cut, number), _names(inner))

    if rows is None:
        specs = {"in_specs": (leaf, number), "out_specs": PartitionSpec(*inner)}
        mapped = jax.shard_map(part, mesh=mesh, check_vma=False, **specs)
    else:
        specs = {"in_specs": (leaf, number, number), "out_specs": PartitionSpec()}
        mapped = jax.shard_map(piece, mesh=mesh, check_vma=False, **specs)
    return mesh_jit(mapped, mesh)


def _fetched(leaf: jax.Array, number: int, stacked: bool, dtype: np.dtype) -> np.ndarray | None:
    """A layer of a leaf that is fully addressable or replicated."""
    layer = part_function(leaf.sharding, leaf.shape, stacked, dtype)(leaf, np.int32(number))
    return np.asarray(layer) if is_writer() else None


def _gathered(leaf: jax.Array, number: int, stacked: bool, dtype: np.dtype) -> np.ndarray | None:
    """A layer whose shards belong to multiple processes."""
    pick, rows = piece_function(leaf.sharding, leaf.shape, stacked, dtype)
    length = leaf.sharding.shard_shape(leaf.shape)[int(stacked)]
    whole = np.empty(leaf.shape[stacked:], dtype) if is_writer() else None
    for start in range(0, length, rows):
        start = min(start, length - rows)  # the last piece may overlap the one before
        piece = pick(leaf, np.int32(number), np.int32(start))
        if whole is None:
            jax.block_until_ready(piece)  # otherwise pieces accumulate on the devices
        else:
            fill(whole, np.asarray(piece.addressable_data(0)), start, leaf.sharding, stacked)
        del piece
    return whole


def fill(
    layer: np.ndarray, piece: np.ndarray, start: int, sharding: NamedSharding, stacked: bool
) -> None:
    """Copies the output of `piece_function` for `start` into `layer`.

    Args:
      layer: [*shape of a layer], written in place.
      piece: [shards, rows, ...].
      start: index of the first of these rows in each shard.
      sharding, stacked: sharding of the leaf, and whether axis 0 is the layer axis.
    """
    axes = _axes(sharding, layer.ndim + stacked)[stacked:]
    sizes = [[sharding.mesh.shape[name] for name in names] for names in axes]
    apart, order, at = [], [], 0
    inside = []
    for length, split in zip(layer.shape, sizes):
        apart += [*split, length // math.prod(split)]
        order += range(at, at + len(split))
        at += len(split)
        inside.append(at)
        at += 1
    # [sizes of the mesh axes, shape of a shard]: a view of the layer
    by_part = layer.reshape(apart).transpose([*order, *inside])
    counts = [size for split in sizes for size in split]
    rows = (slice(None),) * len(counts) + (slice(start, start + piece.shape[1]),)
    by_part[rows] = piece.reshape(*counts, *piece.shape[1:])


def _axes(sharding: NamedSharding, rank: int) -> Axes:
    given = (*sharding.spec, *[None] * (rank - len(sharding.spec)))
    return tuple((one,) if isinstance(one, str) else tuple(one or ()) for one in given)


def _names(axes: Axes) -> tuple[str, ...]:
    return tuple(name for names in axes for name in names)
