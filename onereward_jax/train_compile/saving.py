"""Memory of a device while a trained model is saved: the arrays that stay, plus one layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from onereward_jax.convert.tensor_names import flat_leaves, plan
from onereward_jax.parallel.gather_layers import part_function, piece_function
from onereward_jax.train_compile.job import Written

COMPILED = 2
"""The functions are compiled for this many leaf shapes, the largest ones."""


@dataclasses.dataclass(frozen=True)
class Saving:
    """Bytes on one device.

    Attributes:
      stays: the arrays that stay: the saved model, and what else the stage still holds.
      temporary: the most that slicing and gathering one layer adds.
    """

    stays: int
    temporary: int

    @property
    def peak(self) -> int:
        """Peak memory while the model is saved."""
        return self.stays + self.temporary


def saving_of(written: Written, options: Mapping[str, Any]) -> Saving:
    """Compiles the functions that `convert.save_params` runs on the devices.

    Args:
      written: the model, and the other arrays on the devices.
      options: compiler options.
    """
    leaves = flat_leaves(written.params)
    layers = {}
    for entry in plan(leaves, written.layout, written.config)[0]:
        leaf = leaves[entry.path]
        size = leaf.size * leaf.dtype.itemsize // len(entry.keys)
        layers[leaf.shape, leaf.sharding] = (size, entry.stacked, leaf)
    largest = sorted(layers.values(), key=lambda one: -one[0])[:COMPILED]
    temporary = [_layer_bytes(leaf, stacked, options) for _, stacked, leaf in largest]
    return Saving(bytes_per_device((written.params, written.stays)), max(temporary))


def bytes_per_device(tree: Any) -> int:
    """Bytes on one device of a pytree of sharded `jax.ShapeDtypeStruct`s."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _layer_bytes(leaf: jax.ShapeDtypeStruct, stacked: bool, options: Mapping[str, Any]) -> int:
    """Bytes on one device that slicing and gathering one layer of `leaf` adds."""
    devices = leaf.sharding.mesh.devices.flat
    number, dtype = jax.ShapeDtypeStruct((), np.int32), np.dtype(leaf.dtype)
    # GPUs may run one process each; the topology does not say, so assume it.
    apart = len({one.process_index for one in devices}) > 1 or devices[0].platform == "gpu"
    if apart and not leaf.sharding.is_fully_replicated:
        function, _ = piece_function(leaf.sharding, leaf.shape, stacked, dtype)
        lowered = function.lower(leaf, number, number)
    else:
        function = part_function(leaf.sharding, leaf.shape, stacked, dtype)
        lowered = function.lower(leaf, number)
    memory = lowered.compile(compiler_options=dict(options)).memory_analysis()
    return memory.peak_memory_in_bytes - memory.argument_size_in_bytes
