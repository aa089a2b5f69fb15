"""Where the reference of Algorithm 1 comes from when a run begins, and when it goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from onereward_jax.convert import FLUX, load_params
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import read_policy
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.rl_config import RLConfig, RLModels
from onereward_jax.training.rl_weights import abstract_reference, first_reference

FOLDER = PACKAGE / "mini" / "models" / "editor"


def pointers(tree):
    leaves = jax.tree.leaves(tree)
    shards = [shard.data for leaf in leaves for shard in leaf.addressable_shards]
    return {data.unsafe_buffer_pointer() for data in shards}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_run_that_goes_on_reads_the_reference_it_began_with(dtype):
    """Bit for bit, and without float32 weights in between; at first it is no part of the state."""
    mesh, editor = make_mesh(2, 2, 2), read_policy(FOLDER, dtype=dtype)
    models, config = RLModels(editor, tiny_models.models().scorer), RLConfig()
    params = load_params(FOLDER / "transformer", abstract_params(editor, mesh).transformer, FLUX)
    first = first_reference(models, config, params, mesh)
    again = load_params(FOLDER / "transformer", abstract_reference(models, config, mesh), FLUX)
    assert jax.tree.structure(first) == jax.tree.structure(again)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        assert one.dtype == other.dtype and one.sharding == other.sharding
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert not pointers(first) & pointers(params)
