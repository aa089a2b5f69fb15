"""Device meshes, the table of logical axes, batches on the mesh, rematerialisation policies."""

from onereward_jax.parallel.batch import (
    batch_sharding,
    check_microbatches,
    replicated,
    shard_batch,
    split_microbatches,
)
from onereward_jax.parallel.jit import MeshFunction, logical_axes, mesh_jit
from onereward_jax.parallel.mesh import MESH_AXES, make_mesh
from onereward_jax.parallel.remat import remat
from onereward_jax.parallel.rules import RULES, abstract_arrays, logical_shardings

__all__ = [
    "MESH_AXES",
    "RULES",
    "MeshFunction",
    "abstract_arrays",
    "batch_sharding",
    "check_microbatches",
    "logical_axes",
    "logical_shardings",
    "make_mesh",
    "mesh_jit",
    "remat",
    "replicated",
    "shard_batch",
    "split_microbatches",
]
