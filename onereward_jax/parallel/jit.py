"""`jax.jit` for a mesh: functions are traced and run under the mesh and the logical axis rules."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from onereward_jax.parallel.collective_order import in_order
from onereward_jax.parallel.distributed import barrier, is_multiprocess
from onereward_jax.parallel.sharding_rules import RULES

TPU_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
"""All-gathers a layer's weights before its matmul. By default XLA turns each such matmul (and
convolution) into a loop over the weight shards, a windowed einsum."""


@contextlib.contextmanager
def logical_axes(mesh: Mesh) -> Iterator[None]:
    """Sets the mesh and the logical axis rules for Linen's logical constraints.

    `jax.set_mesh` is required: under the older `with mesh:`, Linen silently ignores them.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


@dataclasses.dataclass(eq=False)
class MeshFunction:
    """A jitted function bound to a mesh.

    Attributes:
      jitted: the result of `jax.jit`.
      mesh: the mesh of its shardings.
    """

    jitted: Any
    mesh: Mesh
    _called: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(self, *args: Any) -> Any:
        """Runs the function; the first call compiles.

        Compile on all hosts before the first collective: gloo times out after 30 s, and some hosts
        may hit the compilation cache while others compile.
        """
        with logical_axes(self.mesh):
            if is_multiprocess() and not self._called:
                self.jitted.lower(*args).compile()
                barrier("the first call of a function", seconds=None)
            self._called = True
            return self.jitted(*args)

    def trace(self, *args: Any) -> jax.stages.Traced:
        """Traces the function for arrays or `jax.ShapeDtypeStruct`s, without compiling."""
        with logical_axes(self.mesh):
            return self.jitted.trace(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Traces the function and lowers it to StableHLO."""
        with logical_axes(self.mesh):
            return self.jitted.trace(*args).lower()


def mesh_jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> MeshFunction:
    """`jax.jit(function, **options)` bound to `mesh`."""
    platform = mesh.devices.flat[0].platform
    if platform == "cpu" and is_multiprocess():
        function = in_order(function)
    if platform == "tpu":
        options = {"compiler_options": TPU_OPTIONS, **options}
    return MeshFunction(jax.jit(function, **options), mesh)
