"""What a candidate takes, reckoned from shapes: only good enough to say what to compile first.

Memory is a bound from below (arguments, gradients, the copy of the weights in the compute dtype,
activations kept for the backward pass of the main model); time is that of the matrix units, of the
links or of the memory, whichever is longest, with all weights gathered and read in each pass.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from onereward_jax.train_compile.programs import Job
from onereward_jax.train_compile.search_space import RunLayout
from onereward_jax.train_compile.topology import Topology

REPEATED = {"none": 0.0, "dots": 0.2, "full": 1.0}
"""Share of a forward that the backward pass computes again; of "dots" the attention."""

WHOLE_STEP = 2**30
"""Bytes of temporaries that no step does without."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one candidate.

    Attributes:
      memory: bytes on one device, at least.
      sample_seconds: of the step, divided by its samples.
    """

    memory: float
    sample_seconds: float


def estimate(job: Job, candidate: RunLayout, topology: Topology) -> Estimate:
    """Reckons.

    Args:
      job: of the same config and stage, on a mesh of one device; its batch may be another.
      candidate: what to try.
      topology: what to try it on.
    """
    sizes = {"data": candidate.data, "fsdp": candidate.fsdp, "tensor": candidate.tensor}
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
    activations = kept / candidate.tensor * candidate.samples * main.tokens * width
    memory = fixed + copied + activations + WHOLE_STEP

    passes = main.passes + (REPEATED[candidate.remat] if main.learns else 0.0)
    flops = job.model_flops / job.batch_size * batch_size / devices * passes / main.passes
    whole = math.fsum(math.prod(leaf.shape) * width for leaf in kernels) / candidate.tensor
    whole *= max(candidate.microbatches, 1)
    gathered = whole * (1 - 1 / candidate.fsdp)
    summed = _summed_features(kernels) * main.tokens * width * batch_size / candidate.parts
    summed *= 2 * (1 - 1 / candidate.tensor)
    seconds = max(
        flops / topology.chip.flops,
        passes * (gathered + summed) / topology.link_bandwidth,
        passes * whole / topology.chip.memory_bandwidth,
    )
    return Estimate(memory, seconds / batch_size)


def _shard_bytes(leaf: Any, sizes: dict[str, int], width: int | None = None) -> float:
    """Of an array on one device; axes that do not divide a side are dropped."""
    parts = 1
    for side, axis in zip(leaf.shape, _spec(leaf)):
        names = (axis,) if isinstance(axis, str) else axis or ()
        split = math.prod(sizes[name] for name in names)
        parts *= split if side % split == 0 else 1
    itemsize = leaf.dtype.itemsize if width is None else width
    return math.prod(leaf.shape) * itemsize / parts


def _spec(leaf: Any) -> PartitionSpec:
    sharding = getattr(leaf, "sharding", None)
    return PartitionSpec() if sharding is None else sharding.spec


def _kept_features(kernels: list[Any], remat: str) -> float:
    """Numbers per token that wait for the backward pass: outputs of products, and their inputs."""
    if remat == "full":
        return 0.0
    outputs = math.fsum(_copies(leaf) * leaf.shape[-1] for leaf in kernels)
    inputs = math.fsum(_copies(leaf) * leaf.shape[-2] for leaf in kernels)
    return outputs + (inputs if remat == "none" else 0.0)


def _summed_features(kernels: list[Any]) -> float:
    """Numbers per token that the devices of the axis `tensor` have to add up."""
    rows = (leaf for leaf in kernels if "tensor" in tuple(_spec(leaf))[-2:-1])
    return math.fsum(_copies(leaf) * leaf.shape[-1] for leaf in rows)


def _copies(leaf: Any) -> int:
    """Layers of a stacked kernel."""
    return math.prod(leaf.shape[:-2])
