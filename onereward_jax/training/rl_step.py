"""Multi-task reward feedback learning: one step of Algorithm 1 or 2 as one jitted function.

    J(θ) = mean over E_k of max(0, λ - P_φ("Yes" | x_θ, x_ref, q))               (Eq. 5, minimised)

The step reads like the algorithm: draw, roll out without gradient (`rl_rollout`), predict, decode
and judge with gradient (`rl_loss`), update (`update`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.parallel import (
    MeshFunction,
    batch_sharding,
    check_microbatches,
    mesh_jit,
    replicated,
)
from onereward_jax.policy.loading import abstract_params
from onereward_jax.training.accumulate import sum_over_microbatches
from onereward_jax.training.metrics import Metrics, by_task, mean_of, once
from onereward_jax.training.monitors import cheating_signs
from onereward_jax.training.optim import make_optimizer
from onereward_jax.training.precision import compute_copy
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_loss import Judged, judge_prediction, predict_image
from onereward_jax.training.rl_rollout import Batch, Draws, Rollout, draw, draw_index, roll_out
from onereward_jax.training.state import TrainState, abstract_state, place_state, shardings_of
from onereward_jax.training.update import apply_gradients, relative_distance


def make_rl_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, frozen, batch, key) -> (state, metrics).

    `state` is donated. `key` is the run's, the same at every step: what is drawn depends on it and
    on `state.step` only. Parameters, moments and average are spread by the logical axes of the
    weights, samples over the mesh axes data and fsdp.

    Raises (when first called):
      ValueError: the batch cannot be split as configured, or `frozen.reference` does not fit
        `config.reference`.
    """
    optimizer = make_optimizer(config.optimizer)

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        check_microbatches(batch["image"].shape[0], config.microbatches, mesh)
        reference = reference_of(config, state, frozen)
        draws = draw(models, key, state.step, batch["image"])
        index = draw_index(config, key, state.step)
        batch_size = batch["image"].shape[0]
        gradients, loss, metrics = sum_over_microbatches(
            lambda part: _gradients(
                models, config, state.params, reference, frozen, *part, index, batch_size
            ),
            (batch, draws),
            config.microbatches,
        )
        distance = relative_distance(state.params, reference)
        metrics |= {"reference_distance": once(distance), "prediction_index": once(index)}
        return apply_gradients(state, loss, gradients, optimizer, metrics, config.ema_decay)

    state = shardings_of(abstract_rl_state(models, config, mesh))
    return mesh_jit(
        step,
        mesh,
        donate_argnums=0,
        in_shardings=(state, None, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(state, replicated(mesh)),
    )


def make_preview(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted function (state, frozen, batch, key) -> (x_θ, x_ref), for sample grids.

    The very images that the step would judge at `state.step`; nothing is donated.
    """

    def preview(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b h w 3"]]:
        policy = _computable(models, state.params)
        reference = _computable(models, reference_of(config, state, frozen))
        draws = draw(models, key, state.step, batch["image"])
        index = draw_index(config, key, state.step)
        rollout = roll_out(models, config, policy, reference, frozen.vae, batch, draws, index)
        image = predict_image(models, config, policy, frozen.vae, batch, rollout)
        return image, rollout.reference_image

    return mesh_jit(preview, mesh, out_shardings=batch_sharding(mesh))


def abstract_rl_state(models: RLModels, config: RLConfig, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state, for restoring and ahead-of-time compiling."""
    transformer = abstract_params(models.editor, mesh).transformer
    return abstract_state(transformer, make_optimizer(config.optimizer), mesh, with_ema=True)


def first_rl_state(config: RLConfig, transformer: PyTree, mesh: Mesh) -> TrainState:
    """π_ema ← π_θ ← the pre-trained editor's transformer, which stays the caller's."""
    return place_state(transformer, make_optimizer(config.optimizer), mesh, with_ema=True)


def abstract_reference(models: RLModels, config: RLConfig, mesh: Mesh) -> PyTree | None:
    """Shapes and shardings of what `first_reference` makes."""
    if config.reference != "frozen":
        return None
    transformer = abstract_params(models.editor, mesh).transformer
    shapes = jax.eval_shape(functools.partial(_computable, models), transformer)
    return jax.tree.map(
        lambda leaf, source: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=source.sharding),
        shapes,
        transformer,
    )


def first_reference(
    models: RLModels, config: RLConfig, transformer: PyTree, mesh: Mesh
) -> PyTree | None:
    """π_ref of Algorithm 1, in the dtype it computes in, as a copy; None in Algorithm 2."""
    abstract = abstract_reference(models, config, mesh)
    if abstract is None:
        return None
    copy = mesh_jit(
        functools.partial(_computable, models), mesh, out_shardings=shardings_of(abstract)
    )
    return copy(transformer)


def reference_of(config: RLConfig, state: TrainState, frozen: Frozen) -> PyTree:
    """π_ref: the frozen one of Algorithm 1, or the moving average of Algorithm 2.

    Raises:
      ValueError: a frozen reference is missing, or held in memory for nothing.
    """
    if (config.reference == "frozen") != (frozen.reference is not None):
        held = "no" if frozen.reference is None else "a"
        raise ValueError(f"reference is {config.reference!r}, but there is {held} frozen.reference")
    return state.ema if frozen.reference is None else frozen.reference


def _gradients(
    models: RLModels,
    config: RLConfig,
    params: PyTree,
    reference: PyTree,
    frozen: Frozen,
    batch: Batch,
    draws: Draws,
    index: Int32[Array, ""],
    batch_size: int,
) -> tuple[PyTree, Float32[Array, ""], Metrics]:
    """Gradient and loss of these samples as their share of a batch of `batch_size`; metrics."""
    policy = jax.lax.stop_gradient(_computable(models, params))
    rollout = roll_out(
        models,
        config,
        policy,
        _computable(models, reference),
        frozen.vae,
        batch,
        draws,
        index,
    )

    def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Judged]:
        policy = _computable(models, params)
        judged = judge_prediction(models, config, policy, frozen, batch, draws, rollout)
        return jnp.sum(judged.loss) / batch_size, judged

    (loss, judged), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    return gradients, loss, _metrics(config, batch, rollout, judged)


def _metrics(config: RLConfig, batch: Batch, rollout: Rollout, judged: Judged) -> Metrics:
    inactive = judged.probability >= config.reward_upper_bound
    cells = (batch["task"], batch["dimension_mask"])
    metrics = {
        "loss": mean_of(judged.loss),
        "reward": by_task(judged.probability, *cells),
        "zero_gradient": by_task(inactive.astype(jnp.float32), *cells),
        **cheating_signs(judged.image, rollout.reference_image, batch["image"], batch["mask"]),
    }
    if config.flow_matching_weight:
        metrics["flow_matching_loss"] = mean_of(judged.matching)
    return metrics


def _computable(models: RLModels, params: Any) -> Any:
    return compute_copy(params, models.editor.transformer.dtype)
