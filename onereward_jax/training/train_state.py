"""The train state and its shardings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int32, PyTree

from onereward_jax.parallel import MeshFunction, batch_sharding, mesh_jit, replicated


class TrainState(NamedTuple):
    """The state of a training run; a step takes it (donated) and returns the next.

    Attributes:
      step: number of steps, including refused ones; all RNG keys are derived from it.
      params: float32 master weights.
      opt_state: moments and counters of the optimizer.
      ema: EMA of `params` (π_ema); None if the stage has none.
      refused: number of steps skipped because loss or gradients were not finite.
      gap: smoothed gap to the held-out judge, see `held_out_judge`; None if nothing stops at it.
      running_rewards: see `rl_balance.RunningRewards`; None if nothing uses them.
    """

    step: Int32[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree | None
    refused: Int32[Array, ""]
    gap: Float32[Array, "2"] | None = None
    running_rewards: PyTree | None = None


def create_state(
    params: PyTree, optimizer: optax.GradientTransformation, *, with_ema: bool
) -> TrainState:
    """The initial state, with π_ema ← π_θ.

    `params` is copied to float32: the state will be donated, while `params` may stay in use, e.g.
    as frozen reference.
    """
    params = jax.tree.map(lambda leaf: jnp.copy(leaf).astype(jnp.float32), params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if with_ema else None,
        refused=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    abstract_params: PyTree, optimizer: optax.GradientTransformation, mesh: Mesh, *, with_ema: bool
) -> TrainState:
    """Shapes and shardings of a state, for jit, restoring and ahead-of-time compilation.

    Args:
      abstract_params: shapes and shardings of the parameters (arrays or `jax.ShapeDtypeStruct`),
        e.g. from `policy.policy_loader.abstract_params`. Moments and EMA have the shardings of
        their parameters, counters are replicated; axes of size 1 of a moment are not sharded.
      optimizer: determines `opt_state`.
      mesh: the mesh.
      with_ema: whether the state has an EMA.

    Returns:
      A `TrainState` of `jax.ShapeDtypeStruct` with `.sharding`.
    """
    create = functools.partial(create_state, optimizer=optimizer, with_ema=with_ema)
    shapes = jax.eval_shape(create, abstract_params)
    params = shardings_of(abstract_params)
    everywhere = replicated(mesh)
    shardings = TrainState(
        step=everywhere,
        params=params,
        opt_state=optax.tree_map_params(
            optimizer,
            _fitting,
            shapes.opt_state,
            params,
            transform_non_params=lambda _counter: everywhere,
        ),
        ema=params if with_ema else None,
        refused=everywhere,
    )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _fitting(moment: jax.ShapeDtypeStruct, sharding: NamedSharding) -> NamedSharding:
    """The sharding of a parameter, for a moment that may have size 1 along some axes."""
    axes = (*sharding.spec, *[None] * (len(moment.shape) - len(sharding.spec)))
    spec = [axis if length > 1 else None for axis, length in zip(axes, moment.shape)]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=sharding.memory_kind)


def shardings_of(abstract: PyTree) -> PyTree:
    """The shardings of a pytree of `jax.ShapeDtypeStruct` or arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def place_state(
    params: PyTree, optimizer: optax.GradientTransformation, mesh: Mesh, *, with_ema: bool
) -> TrainState:
    """The initial state from parameters that are already on the mesh.

    Moments and EMA are created sharded: no device ever holds a full copy.
    """
    abstract = abstract_state(params, optimizer, mesh, with_ema=with_ema)
    create = functools.partial(create_state, optimizer=optimizer, with_ema=with_ema)
    return mesh_jit(create, mesh, out_shardings=shardings_of(abstract))(params)


def jit_step(
    step: Callable[..., tuple[TrainState, Any]], abstract: TrainState, mesh: Mesh, *others: Any
) -> MeshFunction:
    """`step`, which makes of a state and more the next state and metrics, compiled for the mesh.

    Args:
      step: its first argument, the state, is donated.
      abstract: shapes and shardings of the state.
      mesh: the mesh.
      *others: shardings of the other arguments; left out, there is one, a batch.
    """
    state = shardings_of(abstract)
    return mesh_jit(
        step,
        mesh,
        donate_argnums=0,
        in_shardings=(state, *(others or (batch_sharding(mesh),))),
        out_shardings=(state, replicated(mesh)),
    )
