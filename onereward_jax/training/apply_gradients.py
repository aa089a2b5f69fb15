"""From gradients to the next state: skips non-finite steps, applies optimizer and EMA.

The last lines of Algorithms 1 and 2, shared by all training stages.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Float32, PyTree

from onereward_jax.training.ema import moving_average
from onereward_jax.training.metrics import Metrics, once
from onereward_jax.training.train_state import TrainState


def apply_gradients(
    state: TrainState,
    loss: Float32[Array, ""],
    gradients: PyTree,
    optimizer: optax.GradientTransformation,
    metrics: Metrics,
    ema_decay: float | Float[Array, ""] | None = None,
    stopped: Bool[Array, ""] | None = None,
) -> tuple[TrainState, Metrics]:
    """Applies one update, or skips it if the loss or any gradient is NaN or infinite.

    A skipped (refused) step leaves parameters, moments and EMA unchanged, bit for bit. It still
    counts as a step: the next one uses other noise and another batch.

    Args:
      state: the state before the step.
      loss: the loss.
      gradients: gradients of `state.params`, not yet clipped.
      optimizer: from `make_optimizer`.
      metrics: metrics of the step; zeroed if the step is skipped.
      ema_decay: τ; required if the state has an EMA.
      stopped: whether training has ended: then the update is left out, and no step is refused.

    Returns:
      The next state, and the metrics with grad_norm (before clipping), update_norm, param_norm
      and refused (fraction of steps).

    Raises:
      ValueError: the state has an EMA and `ema_decay` is None.
    """
    if state.ema is not None and ema_decay is None:
        raise ValueError("the state has an EMA: ema_decay is required")
    grad_norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(grad_norm) & jnp.isfinite(loss)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = None if state.ema is None else moving_average(state.ema, params, ema_decay)

    updated = finite if stopped is None else finite & ~stopped

    def accept(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(updated, a, b), new, old)

    following = state._replace(
        step=state.step + 1,
        params=accept(params, state.params),
        opt_state=accept(opt_state, state.opt_state),
        ema=accept(ema, state.ema),
        refused=state.refused + jnp.where(finite, 0, 1),
    )
    measured = metrics | {
        "grad_norm": once(grad_norm),
        "update_norm": once(optax.tree.norm(updates)),
        "param_norm": once(optax.tree.norm(following.params)),
    }
    measured = jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0.0), measured)
    return following, measured | {"refused": once(jnp.where(finite, 0.0, 1.0))}
