"""DiffusionNFT (arXiv 2509.16117) with the win rates of a pairwise judge; see
`diffusion_nft_loss`.

The old policy (the moving average) samples a group for each triplet with the guidance of the
config, and the judge compares. The policy is trained on the samples' latents, noised anew: no
gradient passes through judge, decoder or sampler. Its velocities have the true CFG scale of the
prediction: the samples' by default, so that v_old is the field that made them; with 1, as
published, there is no classifier-free guidance in the loss.

Shapes: b triplets, s samples (`group_rollout`), l trained noise levels, n tokens, c channels,
k channels of a condition token.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
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
from onereward_jax.policy import Condition, add_noise
from onereward_jax.training.gradient_accumulation import sum_over_parts
from onereward_jax.training.methods.diffusion_nft_loss import nft_loss, optimality
from onereward_jax.training.methods.group_advantages import advantages
from onereward_jax.training.methods.group_rollout import (
    condition_of,
    group_metrics,
    roll_out_groups,
)
from onereward_jax.training.methods.loss_area import weighted_mean
from onereward_jax.training.methods.target_gradients import add_target_gradients
from onereward_jax.training.metrics import Metrics, mean_of, of_task, once
from onereward_jax.training.online_config import check_groups
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.policy_update import update_policy
from onereward_jax.training.rl_anchor import anchor_weights
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch, draw, embeds_of
from onereward_jax.training.rl_step import abstract_rl_state
from onereward_jax.training.rl_weights import (
    check_frozen,
    policy_weights,
    reference_weights,
)
from onereward_jax.training.train_state import TrainState, jit_step


class Samples(NamedTuple):
    """What the loss needs of the samples.

    Attributes:
      clean: x_0.
      condition: tokens of the fill condition.
      token_weights: weights of the tokens in the loss.
      prompts: the embeddings.
      task: index into `tasks.TASKS`.
      optimality: r.
      sigmas: noise levels to train on.
      keys: of the noise at each level.
    """

    clean: Float32[Array, "s n c"]
    condition: Float32[Array, "s n k"]
    token_weights: Float32[Array, "s n"]
    prompts: Batch
    task: Int32[Array, "s"]
    optimality: Float32[Array, "s"]
    sigmas: Float32[Array, "s l"]
    keys: Key[Array, "s l"]


def make_nft_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, frozen, batch, key) -> (state, metrics), as in `rl_step`.

    Raises (when first called):
      ValueError: as `rl_step.make_rl_step`.
    """
    optimizer, count = make_optimizer(config.optimizer), config.online.group_size

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        check_frozen(config, frozen)
        triplets, size = batch["image"].shape[0], batch["image"].shape[1:3]
        check_groups(triplets, count, config.microbatches, mesh)
        old = policy_weights(models, config, state.ema, frozen)

        def sample(batch: Batch, condition: Condition, noise: Array) -> tuple[Array, Array]:
            clean = models.editor.denoise(
                old,
                noise,
                condition,
                *embeds_of(batch),
                jnp.asarray(models.editor.sigmas(config.num_steps, size)),
                0,
                config.num_steps,
                guidance_scale=config.guidance_scale,
                true_cfg_scale=config.policy_true_cfg_scale,
            )
            return clean, clean

        draws = draw(models, key, state.step, batch["image"])
        keys = jax.random.split(stream(key, "group", state.step), triplets * count)
        noise_keys, loss_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        noise = jax.vmap(lambda one: models.editor.noise(one, 1, size)[0])(noise_keys)
        noise = nn.with_logical_constraint(noise, ("batch", "sequence", None))
        reference = reference_weights(models, config, state, frozen)
        groups = roll_out_groups(
            models, config, mesh, reference, frozen, batch, draws, sample, noise, state.step
        )
        sigmas, level_keys = _levels(models, config, size, loss_keys)
        samples = Samples(
            clean=groups.paths,
            condition=groups.condition,
            token_weights=groups.token_weights,
            prompts=groups.prompts,
            task=repeat_samples(batch["task"], count),
            optimality=optimality(advantages(groups.rewards, count), config.online.advantage_limit),
            sigmas=sigmas,
            keys=level_keys,
        )
        found = _gradients(models, config, state, frozen, samples, size)
        found = add_target_gradients(models, config, mesh, state, frozen, batch, draws, found)
        gradients, loss, metrics = found
        metrics |= group_metrics(config, batch, groups) | {"loss": once(loss)}
        return update_policy(config, optimizer, state, frozen, gradients, loss, metrics)

    others = (None, batch_sharding(mesh), replicated(mesh))
    return jit_step(step, abstract_rl_state(models, config, mesh), mesh, *others)


def _levels(
    models: RLModels, config: RLConfig, size: tuple[int, int], keys: Key[Array, "s"]
) -> tuple[Float32[Array, "s l"], Key[Array, "s l"]]:
    """Levels of the sampling grid, for each sample drawn without putting back, and keys."""
    grid = jnp.asarray(models.editor.sigmas(config.num_steps, size))[:-1]
    levels = config.online.trained_levels

    def one(key: PRNGKeyArray) -> tuple[Float32[Array, "l"], Key[Array, "l"]]:
        order, noise = jax.random.split(key)
        return jax.random.permutation(order, grid)[:levels], jax.random.split(noise, levels)

    return jax.vmap(one)(keys)


def _gradients(
    models: RLModels,
    config: RLConfig,
    state: TrainState,
    frozen: Frozen,
    samples: Samples,
    size: tuple[int, int],
) -> tuple[PyTree, Float32[Array, ""], Metrics]:
    """Gradient and loss, averaged over samples and levels; one level of a microbatch at a time."""
    editor, levels = models.editor, config.online.trained_levels
    old = policy_weights(models, config, state.ema, frozen)
    parts = split_microbatches(samples, config.microbatches)

    def at_level(index: Int32[Array, ""]) -> tuple[PyTree, Float32[Array, ""], Metrics]:
        part = jax.tree.map(lambda leaf: leaf[index // levels], parts)
        sigma, keys = part.sigmas[:, index % levels], part.keys[:, index % levels]
        condition = condition_of(models, part.condition, size)
        noise = jax.vmap(lambda key: jax.random.normal(key, part.clean.shape[1:]))(keys)
        noisy = add_noise(part.clean, noise, sigma)

        def velocity(transformer: PyTree) -> Float32[Array, "_ n c"]:
            found = editor.guided_velocity(
                transformer,
                condition,
                *embeds_of(part.prompts),
                guidance_scale=config.guidance_scale,
                true_cfg_scale=config.prediction_true_cfg_scale,
            )
            return found(noisy, sigma)

        old_velocity = velocity(old)
        if config.anchor_weight:
            first_velocity = velocity(anchor_weights(models, config, frozen))

        def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Metrics]:
            predicted = velocity(policy_weights(models, config, params, frozen))
            loss = nft_loss(
                predicted,
                old_velocity,
                noisy,
                part.clean,
                sigma,
                part.optimality,
                part.token_weights,
                config.online.nft_beta,
                config.online.advantage_limit,
            )
            moved = weighted_mean(jnp.square(predicted - old_velocity), part.token_weights)
            metrics = {"old_distance": mean_of(moved)}
            if config.anchor_weight:
                anchor = weighted_mean(jnp.square(predicted - first_velocity), part.token_weights)
                metrics["anchor"] = of_task(anchor, part.task)
                loss = loss + config.anchor_weight * anchor
            return jnp.sum(loss) / samples.sigmas.size, metrics

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return gradients, loss, metrics

    return sum_over_parts(at_level, jnp.arange(config.microbatches * levels))
