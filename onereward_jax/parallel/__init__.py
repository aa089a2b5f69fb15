"""Processes and device meshes, the table of logical axes, batches on the mesh, remat."""

from onereward_jax.parallel.batch import (
    OwnRow,
    batch_sharding,
    check_microbatches,
    gather,
    local_rows,
    own_rows,
    replicated,
    shard_batch,
    shard_whole,
    split_microbatches,
)
from onereward_jax.parallel.hosts import is_writer, wait_for_all
from onereward_jax.parallel.jit import MeshFunction, logical_axes, mesh_jit
from onereward_jax.parallel.mesh import MESH_AXES, make_mesh
from onereward_jax.parallel.remat import ATTENTION, remat
from onereward_jax.parallel.rules import RULES, abstract_arrays, logical_shardings

__all__ = [
    "ATTENTION",
    "MESH_AXES",
    "RULES",
    "MeshFunction",
    "OwnRow",
    "abstract_arrays",
    "batch_sharding",
    "check_microbatches",
    "gather",
    "is_writer",
    "local_rows",
    "logical_axes",
    "logical_shardings",
    "make_mesh",
    "mesh_jit",
    "own_rows",
    "remat",
    "replicated",
    "shard_batch",
    "shard_whole",
    "split_microbatches",
    "wait_for_all",
]
