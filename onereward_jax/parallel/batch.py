"""Batches on the mesh: the first axis over `data` and `fsdp`, everything else whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64, Shaped

BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which samples are spread; the table of logical axes says the same."""


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples spread over the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch_size: int, mesh: Mesh) -> Int64[np.ndarray, "n"]:
    """Which samples of a global batch lie on devices of this process, in ascending order.

    Processes among which one part of the batch is shared (their devices differ in the mesh axis
    `tensor` only) hold the same samples.

    Raises:
      ValueError: the samples cannot be dealt evenly to the devices of the mesh.
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
    """Puts this process's samples on its devices, as its part of the global batch.

    Args:
      batch: a tree of arrays with the samples of this process on the first axis, in the order of
        `local_rows`.
      mesh: the mesh.

    Raises:
      ValueError: the samples cannot be dealt evenly to the devices of the mesh.
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
    """A sample of an array on the mesh that this process alone takes from it.

    Attributes:
      row: its number in the whole batch.
      shard: the device's part of the batch that it lies in.
      offset: its number there.
    """

    row: int
    shard: jax.Array
    offset: int

    def fetch(self) -> Shaped[np.ndarray, "..."]:
        """Its values; waits for the device. Threads may call it."""
        return np.asarray(self.shard)[self.offset]


def host_local_rows(array: jax.Array) -> Iterator[HostLocalRow]:
    """The samples of an array [b, ...] on the devices of this process, without waiting for them.

    Over all processes every sample comes once, also where several hold it.
    """
    for part in array.addressable_shards:
        if part.replica_id == 0:
            part.data.copy_to_host_async()
            first = part.index[0].start or 0
            for offset in range(part.data.shape[0]):
                yield HostLocalRow(first + offset, part.data, offset)


def replicate(batch: Any, mesh: Mesh) -> Any:
    """A tree of arrays [b, ...] that every process has as a whole, spread over the mesh.

    Raises:
      ValueError: the samples cannot be dealt evenly to the devices of the mesh.
    """
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        local_rows(array.shape[0], mesh)  # says what is wrong with the size
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, batch)


def gather(tree: Any) -> Any:
    """Arrays of any sharding as numpy arrays, whole, on every process; all must call it."""

    def whole(array: jax.Array) -> np.ndarray:
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.asarray(array)
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(whole, tree)


def check_microbatches(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Makes sure that every device has a sample of every microbatch.

    Raises:
      ValueError: `batch_size` is not a multiple of microbatches x parts of the mesh.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (microbatches * parts):
        raise ValueError(
            f"batch size {batch_size} is not a multiple of {microbatches} microbatches x {parts} "
            f"parts of the mesh axes {BATCH_AXES}"
        )


def split_microbatches(batch: Any, microbatches: int) -> Any:
    """Every array [b, ...] as [microbatches, b / microbatches, ...], for `lax.scan`.

    Neighbouring samples go to different microbatches, so that a device keeps the samples it
    has: nothing is sent.
    """

    def split(array: jax.Array) -> jax.Array:
        shape = (array.shape[0] // microbatches, microbatches, *array.shape[1:])
        parts = array.reshape(shape).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, PartitionSpec(None, BATCH_AXES))

    return jax.tree.map(split, batch)
