"""Memory and time of a candidate, estimated from shapes: used only to rank what to compile first.

Memory is a lower bound: arguments, gradients, the copy of the weights in the compute dtype, and
the activations saved for the backward pass of the main model. Time is the longest of compute,
links and memory traffic, with all weights gathered and read in each pass.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from onereward_jax.train_compile.job import Job
from onereward_jax.train_compile.search_space import RunLayout
from onereward_jax.train_compile.topology import Topology

REPEATED = {"none": 0.0, "dots": 0.2, "full": 1.0}
"""Share of a forward pass that the backward pass recomputes; for "dots", the attention."""

SUMS_OF_INT8 = 4
"""Bytes of a sum of products of int8: int32."""

WHOLE_STEP = 2**30
"""Bytes of temporaries added to every step's estimate."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate of one candidate.

    Attributes:
      memory: lower bound of bytes on one device.
      sample_seconds: seconds of a step divided by its batch size.
    """

    memory: float
    sample_seconds: float


def estimate(job: Job, candidate: RunLayout, topology: Topology) -> Estimate:
    """Estimates a candidate on a topology.

    Args:
      job: the job of the same config and stage on a mesh of one device, with any batch size.
      candidate: the layout to estimate.
      topology: the devices.
    """
    sizes = candidate.mesh
    devices, batch_size = math.prod(sizes.values()), candidate.batch_size
    main, width = job.main, jnp.dtype(job.main.dtype).itemsize

    fixed = math.fsum(_shard_bytes(leaf, sizes) for leaf in jax.tree.leaves(job.arguments))
    if main.learns:
        trained = job.arguments[0].params
        fixed += math.fsum(_shard_bytes(leaf, sizes) for leaf in jax.tree.leaves(trained))
        spared = {"float32": 0, "bfloat16": 2, "int8": 6}[candidate.moments]  # of 8 bytes
        fixed -= math.fsum(_shard_bytes(leaf, sizes, spared) for leaf in jax.tree.leaves(trained))
    kernels = [leaf for leaf in jax.tree.leaves(main.weights) if len(leaf.shape) >= 2]
    copied = math.fsum(_shard_bytes(leaf, sizes, width) for leaf in kernels)
    kept = _kept_features(kernels, candidate.remat) if main.learns else 0.0
    tokens = main.tokens / candidate.context
    activations = kept / candidate.tensor * candidate.samples * tokens * width
    memory = fixed + copied + activations + WHOLE_STEP

    passes = main.passes + (REPEATED[candidate.remat] if main.learns else 0.0)
    flops = job.model_flops / job.batch_size * batch_size / devices * passes / main.passes
    int8 = job.int8_flops / job.batch_size * batch_size / devices
    wide = passes - main.int8_passes
    read = wide * _bytes(main.weights, width) + main.int8_passes * _bytes(main.int8, width)
    read *= max(candidate.microbatches, 1) / candidate.tensor
    gathered = read * (1 - 1 / (candidate.fsdp * candidate.context))
    features = _summed_features(kernels) * batch_size / candidate.parts
    summed = (wide * width + main.int8_passes * SUMS_OF_INT8) * features * tokens
    summed *= 2 * (1 - 1 / candidate.tensor)
    # Keys and values have at most twice the features of the outputs.
    shared = passes * width * 2 * features / candidate.tensor * main.tokens
    shared *= 1 - 1 / candidate.context
    seconds = max(
        topology.chip.seconds(flops, int8),
        (gathered + summed + shared) / topology.link_bandwidth,
        read / topology.chip.memory_bandwidth,
    )
    return Estimate(memory, seconds / batch_size)


def _shard_bytes(leaf: Any, sizes: dict[str, int], width: int | None = None) -> float:
    """Bytes of an array on one device; mesh axes that do not divide a dimension are dropped.

    With `width`, at that many bytes per element instead of its own dtype's.
    """
    parts = 1
    for side, axis in zip(leaf.shape, _spec(leaf)):
        names = (axis,) if isinstance(axis, str) else axis or ()
        while side % math.prod(sizes[name] for name in names):
            names = names[:-1]
        parts *= math.prod(sizes[name] for name in names)
    itemsize = leaf.dtype.itemsize if width is None else width
    return math.prod(leaf.shape) * itemsize / parts


def _bytes(weights: Any, width: int) -> float:
    """Bytes of all kernels as a forward pass reads them: int8, or in the compute dtype."""
    kernels = (leaf for leaf in jax.tree.leaves(weights) if len(leaf.shape) >= 2)
    return math.fsum(
        math.prod(leaf.shape) * (1 if leaf.dtype == jnp.int8 else width) for leaf in kernels
    )


def _spec(leaf: Any) -> PartitionSpec:
    sharding = getattr(leaf, "sharding", None)
    return PartitionSpec() if sharding is None else sharding.spec


def _kept_features(kernels: list[Any], remat: str) -> float:
    """Numbers per token saved for the backward pass: outputs (and inputs) of matrix products."""
    if remat == "full":
        return 0.0
    outputs = math.fsum(_copies(leaf) * leaf.shape[-1] for leaf in kernels)
    inputs = math.fsum(_copies(leaf) * leaf.shape[-2] for leaf in kernels)
    return outputs + (inputs if remat == "none" else 0.0)


def _summed_features(kernels: list[Any]) -> float:
    """Numbers per token that are all-reduced over the mesh axis `tensor`."""
    rows = (leaf for leaf in kernels if "tensor" in tuple(_spec(leaf))[-2:-1])
    return math.fsum(_copies(leaf) * leaf.shape[-1] for leaf in rows)


def _copies(leaf: Any) -> int:
    """Number of layers in a stacked kernel; 1 for a single layer."""
    return math.prod(leaf.shape[:-2])
