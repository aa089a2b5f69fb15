"""Flow-GRPO (arXiv 2505.05470) with the win rates of a pairwise judge; see `flow_sde`.

The policy samples a group for each triplet by the SDE, with the guidance of the config, and the
judge compares. Each sample's advantage within its group weighs the probability ratios of the steps
on its path, clipped as in PPO. As in the released code the negative branch of classifier-free
guidance gets no gradient. Fewer sampling steps in training than in evaluation are
`config.rl.num_steps` below `config.evaluate.num_steps`.

Shapes: b triplets, s samples (`group_rollout`), l trained steps, k steps of a path, n tokens,
c channels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Key, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import (
    MeshFunction,
    batch_sharding,
    repeat_samples,
    replicated,
    split_microbatches,
)
from onereward_jax.policy import Condition
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.gradient_accumulation import sum_over_parts
from onereward_jax.training.held_out_judge import follow_gap
from onereward_jax.training.methods.flow_sde import (
    clipped_loss,
    step_distribution,
    step_divergence,
    step_log_prob,
)
from onereward_jax.training.methods.group_advantages import advantages
from onereward_jax.training.methods.group_rollout import (
    condition_of,
    group_metrics,
    roll_out_groups,
)
from onereward_jax.training.methods.pair_batch import area_weights
from onereward_jax.training.methods.target_gradients import add_target_gradients
from onereward_jax.training.metrics import Metrics, mean_of, of_task, once
from onereward_jax.training.online_config import check_groups
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.rl_anchor import anchor_weights
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch, draw, embeds_of
from onereward_jax.training.rl_step import abstract_rl_state
from onereward_jax.training.rl_weights import (
    check_frozen,
    distance_metric,
    policy_weights,
    reference_weights,
)
from onereward_jax.training.train_state import TrainState, jit_step


class Path(NamedTuple):
    """A path of sampling.

    Attributes:
      latents: before each step, and x_0.
      log_probs: of each step but the last, which is not random.
    """

    latents: Float32[Array, "s points n c"]
    log_probs: Float32[Array, "s k"]


class Samples(NamedTuple):
    """What the loss needs of the samples.

    Attributes:
      path: see `Path`.
      condition: tokens of the fill condition.
      token_weights: weights of the tokens in probabilities.
      prompts: the embeddings.
      task: index into `tasks.TASKS`.
      advantages: A.
      steps: indices of the steps to train on.
    """

    path: Path
    condition: Float32[Array, "s n d"]
    token_weights: Float32[Array, "s n"]
    prompts: Batch
    task: Int32[Array, "s"]
    advantages: Float32[Array, "s"]
    steps: Int32[Array, "s l"]


def make_grpo_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, frozen, batch, key) -> (state, metrics), as in `rl_step`.

    One rollout and `inner_updates` updates; it counts as one step. The schedule of the learning
    rate follows the steps.

    Raises (when first called):
      ValueError: as `rl_step.make_rl_step`.
    """
    count, updates = config.online.group_size, config.online.inner_updates
    limit = config.online.advantage_limit
    scheduled = dataclasses.replace(
        config.optimizer,
        warmup_steps=updates * config.optimizer.warmup_steps,
        total_steps=updates * config.optimizer.total_steps,
    )
    optimizer = make_optimizer(scheduled)

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        check_frozen(config, frozen)
        triplets, size = batch["image"].shape[0], batch["image"].shape[1:3]
        check_groups(triplets, count, config.microbatches * updates, mesh)
        policy = policy_weights(models, config, state.params, frozen)
        draws = draw(models, key, state.step, batch["image"])
        keys = jax.random.split(stream(key, "group", state.step), triplets * count)
        path_keys, step_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        groups = roll_out_groups(
            models,
            config,
            mesh,
            reference_weights(models, config, state, frozen),
            frozen,
            batch,
            draws,
            lambda *part: sample_path(models, config, policy, size, *part),
            path_keys,
            state.step,
        )
        random_steps = jnp.arange(config.num_steps - 1)
        chosen = jax.vmap(lambda one: jax.random.permutation(one, random_steps))(step_keys)
        samples = Samples(
            path=groups.paths,
            condition=groups.condition,
            token_weights=groups.token_weights,
            prompts=groups.prompts,
            task=repeat_samples(batch["task"], count),
            advantages=jnp.clip(advantages(groups.rewards, count), -limit, limit),
            steps=chosen[:, : config.online.trained_levels],
        )
        measured = group_metrics(config, batch, groups) | distance_metric(config, state, frozen)
        state, stopped, gap = follow_gap(config, state, measured)

        def update(state: TrainState, share: Samples) -> tuple[TrainState, Metrics]:
            found = _gradients(models, config, state, frozen, share, size)
            found = add_target_gradients(models, config, mesh, state, frozen, batch, draws, found)
            gradients, loss, metrics = found
            metrics |= {"loss": once(loss)}
            decay = config.algorithm.decay(config.ema_decay, state.step)
            return apply_gradients(state, loss, gradients, optimizer, metrics, decay, stopped)

        following, metrics = jax.lax.scan(update, state, split_microbatches(samples, updates))
        metrics = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), metrics)
        return following._replace(step=state.step + 1), metrics | measured | gap

    others = (None, batch_sharding(mesh), replicated(mesh))
    return jit_step(step, abstract_rl_state(models, config, mesh), mesh, *others)


def sample_path(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    size: tuple[int, int],
    batch: Batch,
    condition: Condition,
    keys: Key[Array, "s"],
) -> tuple[Float32[Array, "s n c"], Path]:
    """x_0 and the path to it, by the SDE with the guidance of the policy.

    Args:
      models, config: static.
      policy: weights of its transformer.
      size: height and width of the images.
      batch: prompts and mask.
      condition: the fill condition.
      keys: all randomness of each sample.
    """
    editor, noise = models.editor, config.online.grpo_noise
    sigmas = jnp.asarray(editor.sigmas(config.num_steps, size))
    weights = area_weights(editor, batch["mask"], config.error_area)
    velocity = editor.guided_velocity(
        policy,
        condition,
        *embeds_of(batch),
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.policy_true_cfg_scale,
    )

    def normal(index: Int32[Array, ""]) -> Float32[Array, "s n c"]:
        fold = lambda key: jax.random.fold_in(key, index)
        return jax.vmap(lambda key: editor.noise(fold(key), 1, size)[0])(keys)

    def step(latents: Array, index: Int32[Array, ""]) -> tuple[Array, tuple[Array, Array]]:
        sigma, following = (
            jnp.broadcast_to(level, latents.shape[:1])
            for level in (sigmas[index], sigmas[index + 1])
        )
        found = velocity(latents, sigma)
        mean, deviation = step_distribution(latents, found, sigma, following, sigmas[1], noise)
        moved = mean + deviation[:, None, None] * normal(index + 1)
        return moved, (latents, step_log_prob(moved, mean, deviation, weights))

    clean, (latents, log_probs) = jax.lax.scan(
        step, normal(jnp.int32(0)), jnp.arange(config.num_steps)
    )
    latents = jnp.concatenate([latents, clean[None]])
    return clean, Path(jnp.swapaxes(latents, 0, 1), jnp.swapaxes(log_probs, 0, 1)[:, :-1])


def _gradients(
    models: RLModels,
    config: RLConfig,
    state: TrainState,
    frozen: Frozen,
    samples: Samples,
    size: tuple[int, int],
) -> tuple[PyTree, Float32[Array, ""], Metrics]:
    """Gradient and loss, averaged over samples and steps; one step of a microbatch at a time."""
    editor, online = models.editor, config.online
    sigmas = jnp.asarray(editor.sigmas(config.num_steps, size))
    parts = split_microbatches(samples, config.microbatches)

    def at_step(index: Int32[Array, ""]) -> tuple[PyTree, Float32[Array, ""], Metrics]:
        part = jax.tree.map(lambda leaf: leaf[index // online.trained_levels], parts)
        step = part.steps[:, index % online.trained_levels]
        condition = condition_of(models, part.condition, size)
        weights = part.token_weights
        pick = jax.vmap(lambda values, at: values[at])
        before, after = (pick(part.path.latents, at) for at in (step, step + 1))
        old_log_prob = pick(part.path.log_probs, step)
        positive, negative = embeds_of(part.prompts)
        scale = config.policy_true_cfg_scale

        def mean_of_step(
            transformer: PyTree,
        ) -> tuple[Float32[Array, "_ n c"], Float32[Array, "_"]]:
            def velocity(weights: PyTree, embeds: PyTree) -> Float32[Array, "_ n c"]:
                embedded = config.guidance_scale
                return editor.velocity(weights, before, condition, embeds, sigmas[step], embedded)

            found = velocity(transformer, positive)
            if scale != 1.0:
                without = velocity(jax.lax.stop_gradient(transformer), negative)
                found = without + scale * (found - without)
            return step_distribution(
                before, found, sigmas[step], sigmas[step + 1], sigmas[1], online.grpo_noise
            )

        if config.anchor_weight:
            first_mean, _ = mean_of_step(anchor_weights(models, config, frozen))

        def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Metrics]:
            mean, deviation = mean_of_step(policy_weights(models, config, params, frozen))
            log_ratio = step_log_prob(after, mean, deviation, weights) - old_log_prob
            loss = clipped_loss(log_ratio, part.advantages, online.clip_range)
            clipped = jnp.abs(jnp.expm1(log_ratio)) > online.clip_range
            metrics = {
                "clip_fraction": mean_of(clipped.astype(jnp.float32)),
                "log_ratio": mean_of(jnp.abs(log_ratio)),
            }
            if config.anchor_weight:
                anchor = step_divergence(mean, first_mean, deviation, weights)
                metrics["anchor"] = of_task(anchor, part.task)
                loss = loss + config.anchor_weight * anchor
            return jnp.sum(loss) / samples.steps.size, metrics

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return gradients, loss, metrics

    return sum_over_parts(at_step, jnp.arange(config.microbatches * online.trained_levels))
