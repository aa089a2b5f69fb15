"""Layouts to run a stage with on a topology: mesh shape, remat policy, batch size, moments."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from onereward_jax.training.optimizer import MOMENTS

MOST_TENSOR = 4
"""Largest size of the mesh axis `tensor`: the judge has four key-value heads."""

SAMPLES = (1, 2, 4)
"""Samples per device and microbatch that are tried."""

REMAT = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class RunLayout:
    """One layout to run a stage with.

    Attributes:
      data, fsdp, tensor: sizes of the mesh axes.
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

    @property
    def parts(self) -> int:
        """Number of shards of the batch: data * fsdp."""
        return self.data * self.fsdp

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
            (self.data, self.fsdp, self.tensor) == (other.data, other.fsdp, other.tensor)
            and self.samples >= other.samples
            and REMAT.index(self.remat) <= REMAT.index(other.remat)
            and _moments_rank(self) <= _moments_rank(other)
        )


def candidates(config: ConfigDict, stage: str, devices: int, slices: int) -> Iterator[RunLayout]:
    """All layouts to consider.

    Training steps have the batch size of the config rounded up to whole microbatches, at least one
    sample per shard of the batch. Several microbatches accumulate gradients.
    """
    section = config[stage]
    learns = "microbatches" in section
    remat, moments = (REMAT, MOMENTS) if learns else (("none",), ("",))
    for tensor, fsdp in itertools.product(_divisors(devices), repeat=2):
        if tensor > MOST_TENSOR or devices % (tensor * fsdp):
            continue
        data = devices // (tensor * fsdp)
        if data % slices:
            continue
        for samples, policy, kept in itertools.product(SAMPLES, remat, moments):
            at_a_time = data * fsdp * samples
            microbatches = math.ceil(section.batch_size / at_a_time) if learns else 0
            if learns and samples > 1 and at_a_time > section.batch_size:
                continue
            yield RunLayout(data, fsdp, tensor, policy, samples, microbatches, kept)


def _moments_rank(layout: RunLayout) -> int:
    """Position in `MOMENTS`; larger takes less memory."""
    return MOMENTS.index(layout.moments or MOMENTS[0])


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
