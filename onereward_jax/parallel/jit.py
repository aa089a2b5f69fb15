"""Functions compiled for a mesh: traced and run under it and under the table of logical axes."""

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
"""Gathers a layer's weights before its product with the activations. By default the compiler turns
each such product into a loop over the parts of the weights, convolutions included."""


@contextlib.contextmanager
def logical_axes(mesh: Mesh) -> Iterator[None]:
    """Gives Linen's logical constraints a meaning.

    `jax.set_mesh` is what makes them count: under the older `with mesh:` Linen drops them
    without a word.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


@dataclasses.dataclass(eq=False)
class MeshFunction:
    """A jitted function together with the mesh it belongs to.

    Attributes:
      jitted: what `jax.jit` returned.
      mesh: the mesh of its shardings.
    """

    jitted: Any
    mesh: Mesh
    _called: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(self, *args: Any) -> Any:
        """Runs it, compiling at first.

        Of several processes some may find it compiled in a cache, and gloo gives the others half a
        minute to come. So all wait until it is compiled everywhere.
        """
        with logical_axes(self.mesh):
            if is_multiprocess() and not self._called:
                self.jitted.lower(*args).compile()
                barrier("the first call of a function", seconds=None)
            self._called = True
            return self.jitted(*args)

    def trace(self, *args: Any) -> jax.stages.Traced:
        """Traces it for arrays or `jax.ShapeDtypeStruct`s, without compiling."""
        with logical_axes(self.mesh):
            return self.jitted.trace(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The same, lowered to StableHLO."""
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
