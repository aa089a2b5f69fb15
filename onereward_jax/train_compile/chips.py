"""Peak rates and memory of the supported chips, from the vendors' documents.

TPUs: the specification tables of https://docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and
tpu7x. They give the bandwidth of the links between chips (ICI) as the sum of both directions:
400, 1200, 800 and 1200 GB/s per chip for the last four. They give none for v4: its value here
is unchecked. `memory` is what libtpu 0.0.42.1 reports for all five when a program is too large
("exceeds available HBM (15.75G)"); it is a little less than in the tables, because the system
reserves some.

int8: the same tables give 275 (v4), 393 (v5e) and 1836 (v6e) TOPS per chip. That of v5p has no row
for int8; 918 TOPS is reported elsewhere (https://yobitel.com/knowledge-base/tpu-v5p). That of
tpu7x has none either: the rate of bfloat16 stands in.

GPUs: NVIDIA's data sheets of A100, H100 and H200 (SXM), without sparsity; memory and its bandwidth
as in `cuda`. Each GPU has one network port of 200 Gbit/s (A100) or 400 Gbit/s to other hosts, as
in NVIDIA's DGX systems.

No program reaches the peak rates: `MEASURED_MFU` has what training of such models has reached.
"""

from __future__ import annotations

import dataclasses

from onereward_jax.train_compile.cuda import GPUS

GIB = 2**30

GPU_MEMORY_FRACTION = 0.9
"""Share of a GPU's memory available to programs; the rest is for the driver and NCCL's buffers.
JAX uses 0.75 unless XLA_PYTHON_CLIENT_MEM_FRACTION is set."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates and memory of one JAX *device* of a generation.

    Attributes:
      platform: "tpu" or "cuda".
      flops: bfloat16 operations per second, without sparsity; a multiply-add counts as two.
      int8: products of int8 per second, counted likewise.
      memory: bytes that a program may use.
      memory_bandwidth: bytes per second between memory and cores.
      link_bandwidth: bytes per second received over all links of the fast network (ICI, NVLink)
        together; sending has the same bandwidth at the same time.
      host_bandwidth: bytes per second received from other hosts if the fast network ends at the
        host (GPUs); else 0.
    """

    platform: str
    flops: float
    int8: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    host_bandwidth: float = 0.0

    def seconds(self, flops: float, int8: float) -> float:
        """Time of `flops` operations at the peak, `int8` of which are products of int8."""
        return (flops - int8) / self.flops + int8 / self.int8


def _gpu(generation: str, flops: float, int8: float, link: float, host: float) -> Chip:
    gpu = GPUS[generation]
    memory = GPU_MEMORY_FRACTION * gpu.memory
    return Chip("cuda", flops, int8, memory, float(gpu.bandwidth), link, host)


CHIPS = {
    # Two devices per chip, as in libtpu: half of 275 TFLOP/s, 1200 GB/s and 300 GB/s each.
    "v4": Chip("tpu", 137.5e12, 137.5e12, 15.25 * GIB, 600e9, 150e9),
    "v5e": Chip("tpu", 197e12, 393e12, 15.75 * GIB, 819e9, 200e9),
    "v5p": Chip("tpu", 459e12, 918e12, 95.74 * GIB, 2765e9, 600e9),
    "v6e": Chip("tpu", 918e12, 1836e12, 31.25 * GIB, 1638e9, 400e9),
    # Two devices per chip: half of 2307 TFLOP/s, 7380 GB/s and (in both directions) 1200 GB/s each.
    "tpu7x": Chip("tpu", 1153.5e12, 1153.5e12, 94.75 * GIB, 3690e9, 300e9),
    "a100": _gpu("a100", 312e12, 624e12, 300e9, 25e9),
    "h100": _gpu("h100", 989e12, 1979e12, 450e9, 50e9),
    "h200": _gpu("h200", 989e12, 1979e12, 450e9, 50e9),
}
"""Generation -> one of its devices."""

MEASURED_MFU = {"v5p": 0.37, "h100": 0.40}
"""Generation -> model FLOPs per second over the peak, as measured in training.

h100: the lowest of three steps of this package's `rl` on one GPU, 0.40 to 0.47; `reward` had 0.41
(docs/gpu.md). v5p: MaxDiffusion's fine-tuning of FLUX.1-dev at 1024x1024 with one sample on each
chip, 1.31 s a step (https://www.mintlify.com/AI-Hypercomputer/maxdiffusion/training/flux); a sample
has 3 x 74.4 TFLOP, counted here."""


def measured_mfu(generation: str) -> float:
    """MFU to plan with: that of the generation, else the lowest of those on the same platform."""
    platform = CHIPS[generation].platform
    known = [mfu for name, mfu in MEASURED_MFU.items() if CHIPS[name].platform == platform]
    return MEASURED_MFU.get(generation, min(known))
