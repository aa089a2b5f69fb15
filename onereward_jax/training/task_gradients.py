"""The gradients of the tasks in a batch, each for itself: to measure and to remove conflicts.

Every sample belongs to one task, so the gradients of the tasks add up to that of the batch. They
need one backward pass of the policy per task, and memory for one gradient per task: with four tasks
and FLUX in full precision 190 GB over all devices, as much as weights and moments; with LoRA
next to nothing. A step of 40 + 35 guided forward passes gets 10 to 15 % longer.

Shapes: b batch, t tasks.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int, PRNGKeyArray, PyTree

from onereward_jax.tasks import TASKS
from onereward_jax.training.rl_balance import project_conflicts, projection_orders


def gradients_by_task(
    pull_back: Callable[[Float32[Array, "b"]], PyTree], task: Int[Array, "b"], weights: PyTree
) -> PyTree:
    """Gradients [t, ...] of the summed losses of each task.

    Args:
      pull_back: cotangents of the samples' losses -> gradient of the weights.
      task: index into `TASKS`.
      weights: shapes and shardings of the weights; the gradients are sharded like them.
    """
    members = jax.nn.one_hot(task, len(TASKS), dtype=jnp.float32)
    # One after the other: a backward pass of the policy is large.
    gradients = jax.lax.map(pull_back, members.T)

    def spread(leaf: Array, like: Array | jax.ShapeDtypeStruct) -> Array:
        sharding = NamedSharding(like.sharding.mesh, PartitionSpec(None, *like.sharding.spec))
        return jax.lax.with_sharding_constraint(leaf, sharding)

    return jax.tree.map(spread, gradients, weights)


def task_products(gradients: PyTree) -> Float32[Array, "t t"]:
    """Inner products of gradients [t, ...], over all leaves."""

    def of_leaf(leaf: Float32[Array, "t ..."]) -> Float32[Array, "t t"]:
        axes = tuple(range(1, leaf.ndim))
        return jnp.tensordot(leaf, leaf, (axes, axes), precision="highest")

    return sum(of_leaf(leaf) for leaf in jax.tree.leaves(gradients))


def sum_without_conflicts(gradients: PyTree, key: PRNGKeyArray) -> PyTree:
    """The sum over tasks of gradients [t, ...], projected by PCGrad (`project_conflicts`)."""
    products = task_products(gradients)
    shares = project_conflicts(products, projection_orders(key[None], len(TASKS))[0])
    return jax.tree.map(lambda leaf: jnp.tensordot(shares, leaf, 1, precision="highest"), gradients)
