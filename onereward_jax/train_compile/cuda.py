"""Descriptions of GPUs for XLA's compiler, for compiling on a machine that has none.

The format is XLA's `stream_executor.GpuTargetConfigProto` as text; the values are those that
NVIDIA's devices report (xla/backends/gpu/target_config/specs has the full list of fields).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The properties of a GPU that code generation depends on.

    Attributes:
      name: as reported by the driver.
      capability: major number of the compute capability.
      has_accelerated_features: whether it has architecture-specific instructions (sm_90a).
      cores: streaming multiprocessors.
      lanes: float32 units per multiprocessor.
      shared_memory: bytes of shared memory per multiprocessor; a block may use 1 KiB less.
      clock: GHz.
      bandwidth: memory bandwidth, bytes per second.
      memory: bytes of device memory.
      cache: bytes of L2 cache.
    """

    name: str
    capability: int
    has_accelerated_features: bool
    cores: int
    lanes: int
    shared_memory: int
    clock: float
    bandwidth: int
    memory: int
    cache: int


GPUS = {
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=8,
        has_accelerated_features=False,
        cores=108,
        lanes=64,
        shared_memory=167936,
        clock=1.41,
        bandwidth=2039040000000,
        memory=85100068864,
        cache=41943040,
    ),
    "h100": Gpu(
        name="NVIDIA H100 80GB HBM3",
        capability=9,
        has_accelerated_features=True,
        cores=132,
        lanes=128,
        shared_memory=233472,
        clock=1.98,
        bandwidth=3352320000000,
        memory=84942979072,
        cache=52428800,
    ),
    "h200": Gpu(
        name="NVIDIA H200 141GB HBM3e",
        capability=9,
        has_accelerated_features=True,
        cores=132,
        lanes=128,
        shared_memory=233472,
        clock=1.98,
        bandwidth=4800000000000,
        memory=151397597184,
        cache=52428800,
    ),
}
"""Generation -> description; `chips` takes memory and bandwidth from here."""

CUDNN = (9, 10, 0)
"""Version of cuDNN to compile for; the wheels of jax 0.10 install a later one."""


def target_description(generation: str) -> str:
    """The `GpuTargetConfigProto` of a generation of `GPUS`, as text."""
    gpu = GPUS[generation]
    features = "ACCELERATED_FEATURES" if gpu.has_accelerated_features else "NONE"
    major, minor, patch = CUDNN
    return f"""
gpu_device_info {{
  name: "{gpu.name}"
  cuda_compute_capability {{ major: {gpu.capability} feature_extension: {features} }}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  clock_rate_ghz: {gpu.clock}
  memory_bandwidth: {gpu.bandwidth}
  device_memory_size: {gpu.memory}
  l2_cache_size: {gpu.cache}
  shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.shared_memory - 1024}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}
device_description_str: "{gpu.name}"
"""
