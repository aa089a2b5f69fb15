"""Multi-process runs, the device mesh, logical axis rules, sharded batches, remat."""

from onereward_jax.parallel.batch import (
    HostLocalRow,
    batch_sharding,
    check_microbatches,
    gather,
    host_local_rows,
    join_microbatches,
    local_rows,
    repeat_samples,
    replicate,
    replicated,
    shard_batch,
    split_microbatches,
)
from onereward_jax.parallel.distributed import barrier, is_writer
from onereward_jax.parallel.jit import MeshFunction, mesh_jit
from onereward_jax.parallel.mesh import make_mesh
from onereward_jax.parallel.remat import ATTENTION, remat
from onereward_jax.parallel.sharding_rules import RULES, abstract_arrays, logical_shardings

__all__ = [
    "ATTENTION",
    "RULES",
    "MeshFunction",
    "HostLocalRow",
    "abstract_arrays",
    "batch_sharding",
    "check_microbatches",
    "gather",
    "is_writer",
    "join_microbatches",
    "local_rows",
    "logical_shardings",
    "make_mesh",
    "mesh_jit",
    "host_local_rows",
    "remat",
    "repeat_samples",
    "replicated",
    "shard_batch",
    "replicate",
    "split_microbatches",
    "barrier",
]
