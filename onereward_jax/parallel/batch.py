"""Batches on the mesh: the first axis over `data` and `fsdp`, everything else whole."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which samples are spread; the table of logical axes says the same."""


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples spread over the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's samples on its devices, as its part of the global batch.

    Args:
      batch: arrays with the samples of this process on the first axis.
      mesh: the mesh.

    Raises:
      ValueError: the samples cannot be dealt evenly to the devices of the mesh.
    """
    sharding = batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]

    def place(name: str, array: np.ndarray) -> jax.Array:
        samples = array.shape[0] * jax.process_count()
        if samples % parts:
            raise ValueError(
                f"batch[{name!r}] has {samples} samples, not a multiple of the {parts} parts "
                f"of the mesh axes {BATCH_AXES}"
            )
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    return {name: place(name, array) for name, array in batch.items()}


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
