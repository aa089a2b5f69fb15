"""The device mesh: axes `data` (batch only), `fsdp` (batch and weights), `tensor` (heads, MLP).

On several TPU slices, `data` runs across slices and everything else stays inside one: gradients
are summed over the slow network once a step, weights are gathered over the fast one. GPUs have no
slices: their hosts are in order, so that `tensor`, the innermost axis, stays inside a host where
its size allows, and every axis may cross hosts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

MESH_AXES = ("data", "fsdp", "tensor")


@runtime_checkable
class Device(Protocol):
    """What a mesh asks of a device, of this run or of one that is compiled for."""

    id: int
    platform: str
    device_kind: str
    process_index: int


def slice_index(device: Device) -> int:
    """The TPU slice a device belongs to; 0 where there are no slices.

    XLA numbers the hosts of GPUs by the same attribute.
    """
    return getattr(device, "slice_index", 0) if device.platform == "tpu" else 0


def make_mesh(
    data: int = 1,
    fsdp: int = -1,
    tensor: int = 1,
    *,
    devices: Sequence[Device] | None = None,
    slice_of: Callable[[Device], int] = slice_index,
) -> Mesh:
    """A mesh over all given devices (default: every device of the run).

    Args:
      data, fsdp, tensor: sizes of the axes; at most one may be -1, "whatever is left".
      devices: the devices to use.
      slice_of: which devices have a fast network among them.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or `data` is not a multiple
        of the number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    asked = "x".join(map(str, sizes))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ValueError(f"mesh {asked}: sizes are positive, and at most one of them is -1")
    if -1 in sizes:
        known = -sizes[0] * sizes[1] * sizes[2]
        sizes[sizes.index(-1)] = len(devices) // known
    total = sizes[0] * sizes[1] * sizes[2]
    if total != len(devices):
        raise ValueError(
            f"mesh {asked} (data x fsdp x tensor) does not fit {len(devices)} devices: config.mesh "
            "must multiply to their number, and one of its axes may be -1, whatever is left"
        )

    in_order = sorted(devices, key=slice_of)
    slices = [list(group) for _, group in itertools.groupby(in_order, key=slice_of)]
    if sizes[0] % len(slices):
        raise ValueError(f"mesh {asked}: data is not a multiple of the {len(slices)} slices")
    inside = (sizes[0] // len(slices), *sizes[1:])
    grid = np.concatenate([
        mesh_utils.create_device_mesh(inside, group, allow_split_physical_axes=True)
        for group in slices
    ])
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
