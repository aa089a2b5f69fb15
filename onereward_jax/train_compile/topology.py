"""Topologies by name, e.g. `v5p:4x4x4` or `h100:8x8`: devices to compile for, not to run on.

No TPU and no GPU is needed: the compiler in the `libtpu` wheel knows all TPU topologies, and the
one in JAX's CUDA plugin takes a description of the GPU (`cuda`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from onereward_jax.train_compile.chips import CHIPS, Chip
from onereward_jax.train_compile.cuda import target_description

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5e-4",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Values that libtpu otherwise asks a TPU VM's metadata server for. The last one lets multiple
processes load libtpu."""

COMPILERS = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin")}
"""Platform -> packages with its compiler; the extra of the platform's name installs the first."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one generation.

    Attributes:
      name: as given.
      chip: peak rates and memory of each device.
      sides: chips along each axis of a TPU slice; for GPUs (hosts, GPUs per host).
      slices: TPU slices joined over the data-centre network.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]
    slices: int = 1

    @classmethod
    def named(cls, name: str, slices: int = 1) -> Topology:
        """Parses `<generation>:<chips along each axis>`; for GPUs `<hosts>x<GPUs per host>`.

        Raises:
          ValueError: unknown generation, or not of that form.
        """
        generation, _, shape = name.partition(":")
        if generation not in CHIPS:
            raise ValueError(
                f"--topology {name!r}: the generation is one of {', '.join(CHIPS)}, e.g. v5p:4x4x4"
            )
        chip, sides = CHIPS[generation], shape.split("x")
        numbers = all(side.isdecimal() and int(side) for side in sides)
        if chip.platform == "cuda" and (len(sides) != 2 or not numbers):
            raise ValueError(f"--topology {name!r}: expected hosts x GPUs per host, e.g. h100:8x8")
        if not 2 <= len(sides) <= 3 or not numbers:
            raise ValueError(
                f"--topology {name!r}: expected the chips along each axis, e.g. v5p:4x4x4"
            )
        if slices < 1:
            raise ValueError(f"--slices is {slices}, expected at least 1")
        if slices > 1 and chip.platform == "cuda":
            raise ValueError(
                f"--slices is {slices}, but GPUs have no slices: put the hosts into --topology"
            )
        return cls(name, chip, tuple(map(int, sides)), slices)

    @property
    def link_bandwidth(self) -> float:
        """Bytes per second into a device over the slowest network that a collective crosses.

        ICI in a TPU slice, NVLink in a single GPU host; with multiple GPU hosts, the host network.
        """
        joined = self.chip.platform == "cuda" and self.sides[0] > 1
        return self.chip.host_bandwidth if joined else self.chip.link_bandwidth

    def devices(self) -> Sequence[jax.Device]:
        """Devices to compile for, not to run on.

        Raises:
          ModuleNotFoundError: the compiler for the platform is not installed.
          ValueError: the compiler does not know the topology.
        """
        platform = self.chip.platform
        packages = [name for name in COMPILERS[platform] if importlib.util.find_spec(name)]
        if not packages:
            raise ModuleNotFoundError(
                f"--topology {self.name!r} needs the package {' or '.join(COMPILERS[platform])}; "
                f"the extra installs it: pip install -e '.[{platform}]'"
            )
        try:
            return topologies.get_topology_desc(**self._description()).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(
                f"--topology {self.name!r} is not known to {packages[0]}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def _description(self) -> dict[str, Any]:
        """Arguments of `get_topology_desc`."""
        if self.chip.platform == "cuda":
            hosts, gpus = self.sides
            # XLA's "<slices>x<processes per slice>x<devices per process>": a GPU host is a slice.
            return {
                "platform": "cuda",
                "topology_name": "",
                "target_config": target_description(self.name.partition(":")[0]),
                "topology": f"{hosts}x1x{gpus}",
            }
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        slices = {"num_slices": self.slices} if self.slices > 1 else {}
        return {"platform": "tpu", "topology_name": self.name, **slices}
