"""What saving a trained model takes of a device: what stays there, and a layer on its way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from onereward_jax.convert.tensor_names import flat_leaves, plan
from onereward_jax.parallel.gather_layers import part_function, piece_function
from onereward_jax.train_compile.programs import Written

COMPILED = 2
"""Of so many shapes of leaves, the largest, the functions are compiled."""


@dataclasses.dataclass(frozen=True)
class Saving:
    """Bytes on one device.

    Attributes:
      stays: of arrays: what is written, and what else a stage still holds.
      beside: most that cutting out and sending a layer takes.
    """

    stays: int
    beside: int

    @property
    def peak(self) -> int:
        """Most that is held at any time."""
        return self.stays + self.beside


def saving_of(written: Written, options: Mapping[str, Any]) -> Saving:
    """Compiles what `convert.save_params` runs.

    Args:
      written: the model, and what stays.
      options: of the compiler.
    """
    leaves = flat_leaves(written.params)
    layers = {}
    for entry in plan(leaves, written.layout, written.config)[0]:
        leaf = leaves[entry.path]
        size = leaf.size * leaf.dtype.itemsize // len(entry.keys)
        layers[leaf.shape, leaf.sharding] = (size, entry.stacked, leaf)
    largest = sorted(layers.values(), key=lambda one: -one[0])[:COMPILED]
    beside = [_beside(leaf, stacked, options) for _, stacked, leaf in largest]
    return Saving(held((written.params, written.stays)), max(beside))


def held(tree: Any) -> int:
    """Bytes of the arrays of a tree of `jax.ShapeDtypeStruct` on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _beside(leaf: jax.ShapeDtypeStruct, stacked: bool, options: Mapping[str, Any]) -> int:
    devices = leaf.sharding.mesh.devices.flat
    number, dtype = jax.ShapeDtypeStruct((), np.int32), np.dtype(leaf.dtype)
    # GPUs may have a process each, which no description tells.
    apart = len({one.process_index for one in devices}) > 1 or devices[0].platform == "gpu"
    if apart and not leaf.sharding.is_fully_replicated:
        function, _ = piece_function(leaf.sharding, leaf.shape, stacked, dtype)
        lowered = function.lower(leaf, number, number)
    else:
        function = part_function(leaf.sharding, leaf.shape, stacked, dtype)
        lowered = function.lower(leaf, number)
    memory = lowered.compile(compiler_options=dict(options)).memory_analysis()
    return memory.peak_memory_in_bytes - memory.argument_size_in_bytes
