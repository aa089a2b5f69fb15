"""Peak FLOP/s of devices, by `device_kind`: the denominator of MFU.

TPUs: https://docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and tpu7x (one chip is two devices).
GPUs: NVIDIA's data sheets of A100, H100 and H200 SXM, without sparsity.
"""

from __future__ import annotations

from jax.sharding import Mesh

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""`jax.Device.device_kind` -> peak bfloat16 FLOP/s; a multiply-add counts as two."""


def peak_flops(mesh: Mesh) -> float | None:
    """Peak bfloat16 FLOP/s of all devices of `mesh`; None if the device kind is unknown."""
    peak = PEAK_FLOPS.get(mesh.devices.flat[0].device_kind)
    return None if peak is None else peak * mesh.size
