"""Batches on the mesh: the first axis is sharded over `data` and `fsdp`, the others are not.

Devices that differ only in `tensor` and `context` hold the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64, Shaped

BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which samples are sharded, as in `sharding_rules.RULES`."""


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Shards the first axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Replicates over all devices."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch_size: int, mesh: Mesh) -> Int64[np.ndarray, "n"]:
    """Indices of the samples of a global batch on this process's devices, in ascending order.

    Processes whose devices differ only in the mesh axes `tensor` and `context` hold the same
    samples.

    Raises:
      ValueError: `batch_size` is not a multiple of the size of the batch axes.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(
            f"batch size {batch_size} is not a multiple of the {parts} parts of the mesh axes "
            f"{BATCH_AXES}"
        )
    found = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    everything = np.arange(batch_size)
    return np.unique(np.concatenate([everything[index] for index in found]))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Makes a global batch from host-local samples.

    Args:
      batch: a pytree of numpy arrays [local b, ...] with this process's samples, in the order of
        `local_rows`.
      mesh: the mesh.

    Returns:
      The same pytree with global arrays [b, ...].

    Raises:
      ValueError: the samples do not divide evenly over this process's devices.
    """
    sharding = batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    here = len(local_rows(parts, mesh))

    def place(path: Any, array: np.ndarray) -> jax.Array:
        samples = array.shape[0]
        if samples % here:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} has {samples} samples, not a multiple of the "
                f"{here} parts of the mesh axes {BATCH_AXES}"
            )
        shape = (samples // here * parts, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, np.asarray(array), shape)

    return jax.tree_util.tree_map_with_path(place, batch)


class HostLocalRow(NamedTuple):
    """A sample of a global array that this process, and no other, reads.

    Attributes:
      row: index in the global batch.
      shard: the addressable shard that holds it.
      offset: index in the shard.
    """

    row: int
    shard: jax.Array
    offset: int

    def fetch(self) -> Shaped[np.ndarray, "..."]:
        """Its values [...]. Blocks until the device is done. Thread-safe."""
        return np.asarray(self.shard)[self.offset]


def host_local_rows(array: jax.Array) -> Iterator[HostLocalRow]:
    """The samples of an array [b, ...] on this process's devices; starts copies, does not block.

    Over all processes, each sample is yielded once, even if replicated.
    """
    for part in array.addressable_shards:
        if part.replica_id == 0:
            part.data.copy_to_host_async()
            first = part.index[0].start or 0
            for offset in range(part.data.shape[0]):
                yield HostLocalRow(first + offset, part.data, offset)


def replicate(batch: Any, mesh: Mesh) -> Any:
    """Shards a pytree of arrays [b, ...] that every process holds in full.

    Raises:
      ValueError: b is not a multiple of the size of the batch axes.
    """
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        local_rows(array.shape[0], mesh)  # checks the batch size
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, batch)


def gather(tree: Any) -> Any:
    """Gathers arrays of any sharding to full numpy arrays on every process; all must call it."""

    def whole(array: jax.Array) -> np.ndarray:
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.asarray(array)
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(whole, tree)


def check_microbatches(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Checks that every device gets samples of every microbatch.

    Raises:
      ValueError: `batch_size` is not a multiple of microbatches x size of the batch axes.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (microbatches * parts):
        raise ValueError(
            f"batch size {batch_size} is not a multiple of {microbatches} microbatches x {parts} "
            f"parts of the mesh axes {BATCH_AXES}"
        )


def split_microbatches(batch: Any, microbatches: int) -> Any:
    """Reshapes arrays [b, ...] to [microbatches, b / microbatches, ...], for `lax.scan`.

    Neighbouring samples go to different microbatches, so every device keeps its samples and the
    reshape needs no communication.
    """

    def split(array: jax.Array) -> jax.Array:
        shape = (array.shape[0] // microbatches, microbatches, *array.shape[1:])
        parts = array.reshape(shape).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, PartitionSpec(None, BATCH_AXES))

    return jax.tree.map(split, batch)


def join_microbatches(parts: Any) -> Any:
    """The inverse of `split_microbatches`: [microbatches, n, ...] to [b, ...], in the old order."""

    def join(array: jax.Array) -> jax.Array:
        whole = array.swapaxes(0, 1).reshape(-1, *array.shape[2:])
        return jax.lax.with_sharding_constraint(whole, PartitionSpec(BATCH_AXES))

    return jax.tree.map(join, parts)


def repeat_samples(batch: Any, times: int) -> Any:
    """Arrays [b, ...] with every sample `times` times, side by side: [b * times, ...].

    A device's copies stay with it.
    """

    def repeat(array: jax.Array) -> jax.Array:
        repeated = jnp.repeat(array, times, axis=0)
        return jax.lax.with_sharding_constraint(repeated, PartitionSpec(BATCH_AXES))

    return jax.tree.map(repeat, batch)
