"""TPU topologies by name, as `v5p:4x4x4`: their devices for the compiler, and what a chip can do.

No TPU is needed: the compiler of the `libtpu` wheel knows all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one *device* (as JAX counts them) of a generation can do.

    The figures have not been checked against a source yet.

    Attributes:
      flops: bfloat16 operations per second.
      hbm: bytes of memory that a program may use.
      hbm_bandwidth: bytes per second between memory and core.
      ici_bandwidth: bytes per second over all links to the neighbours, both ways together.
    """

    flops: float
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float


CHIPS = {
    "v4": Chip(275e12, 31.75 * GIB, 1228e9, 300e9),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 448e9),
    # two devices a chip
    "tpu7x": Chip(1153.5e12, 94.75 * GIB, 3690e9, 600e9),
}

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5e-4",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu would ask the metadata server of a TPU machine for, and leave for several runs."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one generation.

    Attributes:
      name: as given.
      chip: what each device can do.
      slices: how many of them are joined over the data-centre network.
    """

    name: str
    chip: Chip
    slices: int = 1

    @classmethod
    def named(cls, name: str, slices: int = 1) -> Topology:
        """The topology `<generation>:<chips along each axis>`.

        Raises:
          ValueError: unknown generation, or not of that form.
        """
        generation, _, shape = name.partition(":")
        if generation not in CHIPS:
            raise ValueError(
                f"--topology {name!r}: the generation is one of {', '.join(CHIPS)}, "
                "as in v5p:4x4x4"
            )
        sides = shape.split("x")
        if not 2 <= len(sides) <= 3 or not all(side.isdecimal() for side in sides):
            raise ValueError(f"--topology {name!r}: chips along each axis are wanted: v5p:4x4x4")
        if slices < 1:
            raise ValueError(f"--slices is {slices}, at least 1 expected")
        return cls(name, CHIPS[generation], slices)

    def devices(self) -> Sequence[jax.Device]:
        """Devices to compile for, not to run on.

        Raises:
          ModuleNotFoundError: the compiler for TPUs is not installed.
          ValueError: it does not know the topology.
        """
        if importlib.util.find_spec("libtpu") is None:
            raise ModuleNotFoundError(
                "compiling for TPUs needs the package libtpu; the extra brings it: "
                "pip install -e '.[tpu]'"
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options = {"num_slices": self.slices} if self.slices > 1 else {}
        try:
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=self.name, **options
            )
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(
                f"--topology {self.name!r} is not known to libtpu: {str(error).splitlines()[0]}"
            ) from error
        return description.devices
