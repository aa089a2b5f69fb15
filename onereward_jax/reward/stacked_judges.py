"""The weights of several judges as one pytree, with a leading axis: those of `JudgePanel`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from onereward_jax.parallel import mesh_jit
from onereward_jax.reward.judge_loader import abstract_reward_params, load_reward_params
from onereward_jax.reward.scorer import Scorer


def abstract_judges(scorer: Scorer, mesh: Mesh, judges: int, *, int8: bool = False) -> PyTree:
    """Shapes and shardings of the result of `load_judges`; the axis of judges is not sharded."""
    one = abstract_reward_params(scorer, mesh, int8=int8)
    return one if judges == 1 else jax.tree.map(lambda leaf: _stacked(leaf, judges), one)


def load_judges(
    folders: Sequence[Path], scorer: Scorer, mesh: Mesh, *, int8: bool = False
) -> PyTree:
    """Loads judges of one architecture, sharded over `mesh`.

    They are copied into the result one after the other: at most one of them is in memory twice.

    Args:
      folders: their folders; a single one is not stacked.
      scorer, mesh, int8: see `load_reward_params`.

    Raises:
      FileNotFoundError, ValueError: as `load_reward_params`.
    """
    if len(folders) == 1:
        return load_reward_params(folders[0], scorer, mesh, int8=int8)
    abstract = abstract_judges(scorer, mesh, len(folders), int8=int8)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def zeros() -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)

    def put(stacked: PyTree, judge: PyTree, place: Array) -> PyTree:
        return jax.tree.map(lambda all_, one: all_.at[place].set(one), stacked, judge)

    stacked = mesh_jit(zeros, mesh, out_shardings=shardings)()
    into = mesh_jit(put, mesh, donate_argnums=0, out_shardings=shardings)
    for place, folder in enumerate(folders):
        judge = load_reward_params(folder, scorer, mesh, int8=int8)
        stacked = into(stacked, judge, jnp.int32(place))
        del judge
    return stacked


def _stacked(leaf: jax.ShapeDtypeStruct, judges: int) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    return jax.ShapeDtypeStruct((judges, *leaf.shape), leaf.dtype, sharding=sharding)
