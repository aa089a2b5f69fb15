"""Logical axes, and batches on the mesh."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from onereward_jax.parallel import (
    check_microbatches,
    logical_shardings,
    make_mesh,
    mesh_jit,
    shard_batch,
    split_microbatches,
)

COMMUNICATION = re.compile(r"all-gather|all-to-all|all-reduce|collective-permute")


class Block(nn.Module):
    """A kernel and an activation that have logical names."""

    @nn.compact
    def __call__(self, x):
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed", "mlp"))
        kernel = self.param("kernel", init, (x.shape[-1], 6))
        return nn.with_logical_constraint(x @ kernel, ("batch", "act_mlp"))


def test_parameters_follow_the_table_and_odd_sizes_are_replicated():
    mesh = make_mesh(1, 4, 2)
    abstract = jax.eval_shape(Block().init, jax.random.key(0), jnp.ones((8, 8)))["params"]
    assert logical_shardings(abstract, mesh)["kernel"].spec == P(("fsdp", "context"), "tensor")
    odd = jax.eval_shape(Block().init, jax.random.key(0), jnp.ones((8, 5)))["params"]
    assert logical_shardings(odd, mesh)["kernel"].spec == P(None, "tensor")
    # Of two mesh axes the last is dropped first.
    few = jax.eval_shape(Block().init, jax.random.key(0), jnp.ones((8, 6)))["params"]
    assert logical_shardings(few, make_mesh(1, 2, 1, 4))["kernel"].spec == P("fsdp", "tensor")


def test_logical_constraints_reach_the_compiled_function():
    mesh = make_mesh(2, 2, 2)
    params = {"params": {"kernel": jnp.ones((8, 6))}}
    lowered = mesh_jit(Block().apply, mesh).lower(params, jnp.ones((8, 8)))
    lines = lowered.as_text().splitlines()
    constraint = next(line for line in lines if "sharding_constraint" in line)
    assert all(axis in constraint for axis in ("data", "fsdp", "tensor"))


def test_a_batch_is_dealt_to_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    placed = shard_batch({"image": np.arange(8.0).reshape(8, 1)}, mesh)["image"]
    assert placed.sharding.spec == P(("data", "fsdp"))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1)}
    with pytest.raises(ValueError, match=r"batch\['image'\] has 6 samples"):
        shard_batch({"image": np.zeros((6, 1))}, mesh)


def test_microbatches_hold_every_sample_once_and_move_none():
    mesh = make_mesh(2, 4, 1)
    batch = shard_batch({"index": np.arange(32)}, mesh)
    split = mesh_jit(lambda batch: split_microbatches(batch, 4), mesh)
    parts = split(batch)["index"]
    assert parts.shape == (4, 8)
    assert sorted(np.ravel(parts)) == list(range(32))
    assert not COMMUNICATION.search(split.lower(batch).compile().as_text())
    with pytest.raises(ValueError, match="batch size 16 is not a multiple of 4 microbatches x 8"):
        check_microbatches(16, 4, mesh)
