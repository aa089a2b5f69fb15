"""Multi-task reward feedback learning: one step of Algorithm 1 or 2 as one jitted function.

    J(θ) = mean over E_k of max(0, λ - P_φ("Yes" | x_θ, x_ref, q))               (Eq. 5, minimised)

The step: draw, roll out without gradient (`rl_rollout`), predict, decode and judge with gradient
(`rl_loss`), update (`policy_update`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import (
    MeshFunction,
    batch_sharding,
    check_microbatches,
    mesh_jit,
    replicated,
)
from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.held_out_judge import held_out_rewards
from onereward_jax.training.metrics import Mean, Metrics, by_task, mean_of, of_task, once
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.policy_update import update_policy
from onereward_jax.training.reward_hacking import cheating_signs
from onereward_jax.training.rl_balance import first_rewards
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_loss import (
    Judged,
    judge_images,
    judge_prediction,
    predict_image,
    without_gradient,
)
from onereward_jax.training.rl_rollout import Batch, Draws, Rollout, draw, draw_index, roll_out
from onereward_jax.training.rl_weights import (
    abstract_trained,
    check_frozen,
    policy_weights,
    rollout_weights,
)
from onereward_jax.training.rollout_int8 import Rounded, make_round_weights
from onereward_jax.training.target_loss import target_shares
from onereward_jax.training.task_gradients import gradients_by_task, sum_without_conflicts
from onereward_jax.training.train_state import (
    TrainState,
    abstract_state,
    jit_step,
    place_state,
)


def make_rl_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, frozen, batch, key) -> (state, metrics).

    `state` is donated. `key` is the key of the run, the same at every step: random draws depend on
    `key` and `state.step` only. Parameters, moments and average are sharded by the logical axes of
    the weights, samples over the mesh axes data and fsdp.

    Raises (when first called):
      ValueError: the batch cannot be split as configured, or the transformers in `frozen` do not
        match `config`.
    """
    optimizer = make_optimizer(config.optimizer)
    abstract = abstract_rl_state(models, config, mesh)
    round_weights = make_round_weights(models, config, mesh)

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        check_frozen(config, frozen)
        check_microbatches(batch["image"].shape[0], config.microbatches, mesh)
        draws = draw(models, key, state.step, batch["image"])
        index = draw_index(config, key, state.step)
        batch_size, rounded = batch["image"].shape[0], round_weights(state, frozen)
        gradients, loss, metrics = sum_over_microbatches(
            lambda part: _gradients(
                models, config, state, frozen, rounded, *part, index, batch_size, abstract.params
            ),
            (batch, draws, target_shares(batch["has_target"])),
            config.microbatches,
        )
        if config.balance.projects_tasks:
            order = stream(key, "order_of_tasks", state.step)
            gradients = sum_without_conflicts(gradients, order)
        metrics["prediction_index"] = once(jnp.mean(index))
        return update_policy(config, optimizer, state, frozen, gradients, loss, metrics)

    others = (None, batch_sharding(mesh), replicated(mesh))
    return jit_step(step, abstract, mesh, *others)


def make_preview(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted function (state, frozen, batch, key) -> (x_θ, x_ref), for sample grids.

    The images that the step would judge at `state.step`. Inputs are not donated.
    """
    round_weights = make_round_weights(models, config, mesh)

    def preview(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b h w 3"]]:
        check_frozen(config, frozen)
        rounded = round_weights(state, frozen)
        weights = rollout_weights(models, config, state, frozen, rounded)
        draws = draw(models, key, state.step, batch["image"])
        index = draw_index(config, key, state.step)
        rollout = roll_out(models, config, *weights, frozen.vae, batch, draws, index)
        policy = policy_weights(models, config, state.params, frozen)
        image = predict_image(models, config, policy, frozen.vae, batch, rollout)
        return image, rollout.reference_image

    return mesh_jit(preview, mesh, out_shardings=batch_sharding(mesh))


def abstract_rl_state(models: RLModels, config: RLConfig, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state, for restoring and ahead-of-time compilation."""
    trained = abstract_trained(models, config, mesh)
    state = abstract_state(trained, make_optimizer(config.optimizer), mesh, with_ema=True)
    if config.stop_at_gap:
        gap = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=replicated(mesh))
        state = state._replace(gap=gap)
    if config.balance.follows_rewards:
        everywhere = replicated(mesh)
        running = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            jax.eval_shape(first_rewards),
        )
        state = state._replace(running_rewards=running)
    return state


def first_rl_state(config: RLConfig, trained: PyTree, mesh: Mesh) -> TrainState:
    """The initial state: π_ema ← π_θ ← the pre-trained transformer, or a new adapter for it.

    Inputs are not donated.
    """
    state = place_state(trained, make_optimizer(config.optimizer), mesh, with_ema=True)
    if config.stop_at_gap:
        gap = mesh_jit(lambda: jnp.zeros(2, jnp.float32), mesh, out_shardings=replicated(mesh))()
        state = state._replace(gap=gap)
    if config.balance.follows_rewards:
        running = mesh_jit(first_rewards, mesh, out_shardings=replicated(mesh))()
        state = state._replace(running_rewards=running)
    return state


def _gradients(
    models: RLModels,
    config: RLConfig,
    state: TrainState,
    frozen: Frozen,
    rounded: Rounded | None,
    batch: Batch,
    draws: Draws,
    shares: Float32[Array, "b"],
    index: Int32[Array, "*k"],
    batch_size: int,
    weights: PyTree,
) -> tuple[PyTree, Float32[Array, ""], Metrics]:
    """Gradient and loss, summed over these samples and divided by `batch_size`; metrics.

    With `balance.projects_tasks`, the gradients of the tasks, [t, ...]. `weights` has the shardings
    of the trained weights.
    """
    rolled = rollout_weights(models, config, state, frozen, rounded)
    rollout = roll_out(models, config, *rolled, frozen.vae, batch, draws, index)

    def judge(params: PyTree) -> tuple[Float32[Array, "b"], Judged]:
        policy = policy_weights(models, config, params, frozen)
        judged = judge_prediction(
            models, config, policy, frozen, batch, draws, rollout, shares, state.running_rewards
        )
        return judged.loss, judged

    def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Judged]:
        losses, judged = judge(params)
        return jnp.sum(losses) / batch_size, judged

    if config.balance.projects_tasks:
        losses, pull_back, judged = jax.vjp(judge, state.params, has_aux=True)
        loss = jnp.sum(losses) / batch_size
        gradients = gradients_by_task(
            lambda ones: pull_back(ones / batch_size)[0], batch["task"], weights
        )
    else:
        (loss, judged), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics = _metrics(config, batch, rollout, judged)
    if config.held_out_every:
        held_out = dataclasses.replace(models, scorer=models.held_out)
        seen, cells = jax.lax.stop_gradient(judged.seen), (batch["task"], batch["dimension_mask"])
        metrics |= held_out_rewards(
            config,
            lambda: jnp.exp(judge_images(held_out, frozen.held_out, *seen, batch)[0]),
            jnp.exp(judged.log_yes),
            cells,
            state.step,
        )
    return gradients, loss, metrics


def _metrics(config: RLConfig, batch: Batch, rollout: Rollout, judged: Judged) -> Metrics:
    idle = without_gradient(config, judged.log_yes, judged.log_no)
    cells = (batch["task"], batch["dimension_mask"])
    metrics = {
        "loss": mean_of(judged.loss),
        "reward": by_task(jnp.exp(judged.log_yes), *cells),
        "zero_gradient": by_task(idle.astype(jnp.float32), *cells),
        **cheating_signs(judged.image, rollout.reference_image, batch["image"], batch["mask"]),
    }
    if config.anchor_weight:
        metrics["anchor"] = of_task(judged.anchor, batch["task"])
    if config.balance.follows_rewards:
        metrics["squared_reward"] = by_task(jnp.exp(2.0 * judged.log_yes), *cells)
    if config.flow_matching_weight:
        known = jnp.sum(batch["has_target"], dtype=jnp.float32)
        metrics["flow_matching_loss"] = Mean(jnp.sum(judged.matching), known)
    return metrics
