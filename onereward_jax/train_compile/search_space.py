"""Layouts to run a stage with on a topology: mesh shape, remat policy, batch size, moments."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from onereward_jax.parallel.mesh import MESH_AXES
from onereward_jax.training.optimizer import MOMENTS

MOST_TENSOR = 4
"""Largest size of the mesh axis `tensor`: the judge has four key-value heads."""

MOST_CONTEXT = 4
"""Largest size of the mesh axis `context`."""

SHARES_TOKENS = ("rl", "candidates", "evaluate")
"""Stages whose time is that of the diffusion transformer, the only model that uses `context`."""

SAMPLES = (1, 2, 4)
"""Samples per device and microbatch that are tried."""

REMAT = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class RunLayout:
    """One layout to run a stage with.

    Attributes:
      data, fsdp, tensor, context: sizes of the mesh axes.
      remat: policy of `parallel.remat`.
      samples: samples per device and microbatch.
      microbatches: microbatches per step; 0 if the stage does not train.
      moments: dtype of the optimiser's moments; "" if the stage does not train.
    """

    data: int
    fsdp: int
    tensor: int
    remat: str
    samples: int
    microbatches: int
    moments: str
    context: int = 1

    @property
    def parts(self) -> int:
        """Number of shards of the batch: data * fsdp."""
        return self.data * self.fsdp

    @property
    def mesh(self) -> dict[str, int]:
        """Mesh axis -> size."""
        return {name: getattr(self, name) for name in MESH_AXES}

    @property
    def batch_size(self) -> int:
        """Samples per step over all devices."""
        return self.parts * self.samples * max(self.microbatches, 1)

    def fields(self, stage: str) -> dict[str, int | str]:
        """Config fields of this layout: dotted name -> value."""
        fields = {
            "mesh.data": self.data,
            "mesh.fsdp": self.fsdp,
            "mesh.tensor": self.tensor,
            "mesh.context": self.context,
            f"{stage}.batch_size": self.batch_size,
        }
        if self.microbatches:
            fields["models.remat"] = self.remat
            fields[f"{stage}.microbatches"] = self.microbatches
            fields[f"{stage}.optimizer.moments"] = self.moments
        return fields

    def config(self, base: ConfigDict, stage: str) -> ConfigDict:
        """A copy of `base` with the fields of this layout."""
        changed = copy.deepcopy(base)
        changed.update_from_flattened_dict(self.fields(stage))
        return changed

    def needs_no_less(self, other: RunLayout) -> bool:
        """Whether it needs at least the memory of `other`: same mesh, no field that saves more."""
        return (
            self.mesh == other.mesh
            and self.samples >= other.samples
            and REMAT.index(self.remat) <= REMAT.index(other.remat)
            and _moments_rank(self) <= _moments_rank(other)
        )


def candidates(config: ConfigDict, stage: str, devices: int, slices: int) -> Iterator[RunLayout]:
    """All layouts to consider.

    Training steps have the batch size of the config rounded up to whole microbatches, at least one
    sample per shard of the batch. Several microbatches accumulate gradients. `context` is only used
    where the batch has no more samples to shard.
    """
    section = config[stage]
    learns = "microbatches" in section
    remat, moments = (REMAT, MOMENTS) if learns else (("none",), ("",))
    for tensor, fsdp, context in itertools.product(_divisors(devices), repeat=3):
        inner = tensor * fsdp * context
        if tensor > MOST_TENSOR or context > MOST_CONTEXT or devices % inner:
            continue
        data = devices // inner
        if data % slices:
            continue
        if context > 1 and (stage not in SHARES_TOKENS or data * fsdp < section.batch_size):
            continue
        for samples, policy, kept in itertools.product(SAMPLES, remat, moments):
            at_a_time = data * fsdp * samples
            microbatches = math.ceil(section.batch_size / at_a_time) if learns else 0
            if learns and samples > 1 and at_a_time > section.batch_size:
                continue
            yield RunLayout(data, fsdp, tensor, policy, samples, microbatches, kept, context)


def _moments_rank(layout: RunLayout) -> int:
    """Position in `MOMENTS`; larger takes less memory."""
    return MOMENTS.index(layout.moments or MOMENTS[0])


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
