"""The device mesh: axes `data` (batch only), `fsdp` (batch and weights), `tensor` (heads, MLP) and
`context` (tokens of the diffusion transformer, and weights).

With multiple TPU slices, `data` spans slices (DCN) and the other axes stay inside one (ICI):
gradients are all-reduced over the slow network once per step, weights are all-gathered over the
fast one. GPUs are ordered host by host along `data`, then `fsdp`; `tensor` and `context`, the
innermost axes, stay inside a host together if their sizes allow. Devices of an ahead-of-time
topology are ordered the same way.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

MESH_AXES = ("data", "fsdp", "tensor", "context")


@runtime_checkable
class Device(Protocol):
    """The attributes of a device that a mesh needs; also those of ahead-of-time topologies."""

    id: int
    platform: str
    device_kind: str
    process_index: int


def slice_index(device: Device) -> int:
    """The TPU slice of a device; 0 for other platforms.

    On GPUs, XLA uses the same attribute for the host.
    """
    return getattr(device, "slice_index", 0) if device.platform == "tpu" else 0


def host_order(device: Device) -> tuple[int, int, int]:
    """Sort key that orders GPUs host by host.

    XLA (pjrt/distributed/topology_util.cc) numbers GPUs by process, and hosts (by boot id) as
    slices. With one process per GPU, the GPUs of a host need not have consecutive ids. In an
    ahead-of-time topology all devices have slice 0, and each process is a host.
    """
    return (getattr(device, "slice_index", 0) or 0, device.process_index, device.id)


def make_mesh(
    data: int = 1,
    fsdp: int = -1,
    tensor: int = 1,
    context: int = 1,
    *,
    devices: Sequence[Device] | None = None,
) -> Mesh:
    """A mesh over `devices`.

    Args:
      data, fsdp, tensor, context: sizes of the axes; at most one may be -1 (inferred).
      devices: the devices to use; None: all devices of the run.

    Raises:
      ValueError: naming config.mesh: the sizes do not multiply to the number of devices, `data` is
        not a multiple of the number of TPU slices, slices differ in size, or a group of GPUs along
        `tensor` and `context` would straddle hosts.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor, context]
    asked = f"config.mesh is {'x'.join(map(str, sizes))} ({' x '.join(MESH_AXES)})"
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ValueError(f"{asked}: sizes are positive, and at most one of them is -1")
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // -math.prod(sizes)
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"{asked}, which does not fit {len(devices)} devices: the sizes must multiply to the "
            "number of devices; one may be -1 (inferred)"
        )
    arranged = _by_host if devices[0].platform == "gpu" else _by_slice
    grid = arranged(devices, tuple(sizes))
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _by_slice(devices: Sequence[Device], sizes: tuple[int, ...]) -> np.ndarray:
    """TPUs, slice by slice along `data`; inside a slice in the order of the ICI topology."""
    in_order = sorted(devices, key=slice_index)
    slices = [list(group) for _, group in itertools.groupby(in_order, key=slice_index)]
    if len({len(group) for group in slices}) > 1:
        found = ", ".join(str(len(group)) for group in slices)
        raise ValueError(f"config.mesh: TPU slices have {found} devices; their sizes must be equal")
    if sizes[0] % len(slices):
        raise ValueError(
            f"config.mesh.data is {sizes[0]}: it spans {len(slices)} TPU slices and must be a "
            "multiple of their number"
        )
    inside = (sizes[0] // len(slices), *sizes[1:])
    return np.concatenate(
        [
            mesh_utils.create_device_mesh(inside, group, allow_split_physical_axes=True)
            for group in slices
        ]
    )


def _by_host(devices: Sequence[Device], sizes: tuple[int, ...]) -> np.ndarray:
    """GPUs, host by host."""
    in_order = sorted(devices, key=host_order)
    hosts = Counter(host_order(device)[0] for device in devices)
    if len(hosts) == 1:
        hosts = Counter(device.process_index for device in devices)
    _, _, tensor, context = sizes
    group, named = tensor * context, f"config.mesh.tensor is {tensor}"
    if context > 1:
        named = f"config.mesh.tensor x context is {tensor}x{context}"
    for count in hosts.values():
        if count % group and group % count:
            raise ValueError(
                f"{named}, but a host has {count} GPUs: one must be a multiple of the other"
            )
    grid = np.empty(len(in_order), object)
    grid[:] = in_order
    return grid.reshape(sizes)
