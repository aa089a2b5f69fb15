"""Groups of samples of each triplet and the judge's opinions of them, without gradient.

Conditions and references are made once per triplet, samples in microbatches of all groups
together: memory does not grow with the groups but for what is kept, latents and images.

Shapes: b triplets, s = b * group size samples with those of a triplet side by side, n tokens,
c channels of a latent token, k channels of a condition token, e dimensions (padded), h, w height
and width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32, Key, PyTree

from onereward_jax.parallel import repeat_samples
from onereward_jax.policy import Condition
from onereward_jax.policy.latent_packing import image_ids, token_grid
from onereward_jax.training.gradient_accumulation import map_microbatches
from onereward_jax.training.held_out_judge import held_out_rewards
from onereward_jax.training.methods.group_advantages import neighbour, ring_win_rates, spread
from onereward_jax.training.methods.pair_batch import area_weights
from onereward_jax.training.metrics import Metrics, by_task, mean_of
from onereward_jax.training.reward_hacking import cheating_signs
from onereward_jax.training.rl_balance import dimension_weights, mean_over_dimensions
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_loss import jittered, judge_images
from onereward_jax.training.rl_rollout import Batch, Draws, reference_images

Sample = Callable[[Batch, Condition, Any], tuple[Float32[Array, "s n c"], Any]]
"""(prompts and mask, condition, noise of some samples) -> (x_0, what the loss needs of each)."""


class Groups(NamedTuple):
    """Judged samples of all triplets.

    Attributes:
      prompts: the fields of the batch with embeddings, for each sample.
      condition: tokens of its fill condition.
      token_weights: weights of the tokens in a loss, see `area_weights`.
      paths: what the method needs of how it was sampled.
      images: the finished samples, in [-1, 1].
      reference_images: samples of the reference, one per triplet; None if there is none.
      win_rates: P(better than an opponent) per dimension; arbitrary at padded dimensions.
      rewards: their mean over E_k.
      held_out: metrics of the held-out judge, see `held_out_judge`; empty without one.
    """

    prompts: Batch
    condition: Float32[Array, "s n k"]
    token_weights: Float32[Array, "s n"]
    paths: PyTree
    images: Float32[Array, "s h w 3"]
    reference_images: Float32[Array, "b h w 3"] | None
    win_rates: Float32[Array, "s e"]
    rewards: Float32[Array, "s"]
    held_out: Metrics


def roll_out_groups(
    models: RLModels,
    config: RLConfig,
    mesh: Mesh,
    reference: PyTree | None,
    frozen: Frozen,
    batch: Batch,
    draws: Draws,
    sample: Sample,
    noise: PyTree,
    step: Int32[Array, ""],
) -> Groups:
    """Samples the groups and asks the judge, with `stop_gradient` applied.

    Args:
      models, config, mesh: static.
      reference: weights of the reference's transformer; None if its pictures come from a bank.
      frozen: weights of autoencoder and judges.
      batch: the triplets.
      draws: `reference_noise` and `jitter_keys` are used. The comparisons of a triplet are jittered
        alike, so that jitter does not rank its samples.
      sample: the method's sampler, called a microbatch at a time.
      noise: its random draws, arrays [s, ...].
      step: number of updates before this one.
    """
    size, count = batch["image"].shape[1:3], config.online.group_size
    condition, reference_images = map_microbatches(
        lambda part: _prepare(models, config, reference, frozen.vae, *part),
        (batch, draws.reference_noise),
        microbatches_of_triplets(config, batch["image"].shape[0], mesh),
    )
    needed = {name: batch[name] for name in batch if "embeds" in name or name in ("image", "mask")}
    needed, condition = repeat_samples((needed, condition), count)

    def one(part: tuple) -> tuple[PyTree, Float32[Array, "_ h w 3"]]:
        batch, tokens, noise = part
        clean, path = sample(batch, condition_of(models, tokens, size), noise)
        return path, models.editor.finish(frozen.vae, clean, batch["image"], batch["mask"])

    paths, images = map_microbatches(one, (needed, condition, noise), config.microbatches)
    compared = batch, images, reference_images, draws.jitter_keys
    win_rates = _win_rates(models, config, frozen.judge, *compared)
    task, asked = cells = repeat_samples((batch["task"], batch["dimension_mask"]), count)
    weights = dimension_weights(config.dimension_weights, task)
    rewards, held_out = mean_over_dimensions(win_rates, asked, weights), {}
    if config.held_out_every:
        other = dataclasses.replace(models, scorer=models.held_out)
        ask = lambda: _win_rates(other, config, frozen.held_out, *compared)
        held_out = held_out_rewards(config, ask, win_rates, cells, step)
    prompts = {name: needed[name] for name in needed if "embeds" in name}
    area = area_weights(models.editor, needed["mask"], config.error_area)
    groups = Groups(
        prompts, condition, area, paths, images, reference_images, win_rates, rewards, held_out
    )
    return jax.lax.stop_gradient(groups)


def condition_of(
    models: RLModels, tokens: Float[Array, "s n k"], size: tuple[int, int]
) -> Condition:
    """The fill condition with these tokens, for images of `size`."""
    return Condition(tokens, image_ids(token_grid(*size, models.editor.vae.config.scale_factor)))


def microbatches_of_triplets(config: RLConfig, triplets: int, mesh: Mesh) -> int:
    """The fewest that never hold more triplets than a microbatch of samples holds samples."""
    on_a_device = triplets // (mesh.shape["data"] * mesh.shape["fsdp"])
    fewest = config.microbatches / config.online.group_size
    return min(
        parts
        for parts in range(1, on_a_device + 1)
        if on_a_device % parts == 0 and (parts >= fewest or parts == on_a_device)
    )


def _prepare(
    models: RLModels,
    config: RLConfig,
    reference: PyTree | None,
    vae: PyTree,
    batch: Batch,
    noise: Float32[Array, "b n c"],
) -> tuple[Float32[Array, "b n k"], Float32[Array, "b h w 3"] | None]:
    """Tokens of the fill conditions, and samples of the reference if they are compared with."""
    condition = models.editor.encode_condition(vae, batch["image"], batch["mask"])
    if config.online.compare == "group":
        return condition.tokens, None
    images = reference_images(models, config, reference, vae, batch, noise, condition)
    return condition.tokens, images


def _win_rates(
    models: RLModels,
    config: RLConfig,
    judge: PyTree,
    batch: Batch,
    images: Float32[Array, "s h w 3"],
    reference_images: Float32[Array, "b h w 3"] | None,
    jitter_keys: Key[Array, "b"],
) -> Float32[Array, "s e"]:
    """P("Yes") of a judge to each sample against its opponents, averaged over these."""
    count = config.online.group_size
    # A reward of one's own may read any field.
    read = {name: batch[name] for name in batch if not (models.asks and "embeds" in name)}
    asked, keys = repeat_samples((read, jitter_keys), count)

    def answers(part: tuple) -> tuple[Float32[Array, "_ e"], Float32[Array, "_ e"]]:
        asked, keys, images, opponents = part
        seen = jittered(config, keys, images, opponents, asked)
        return judge_images(models, judge, *seen, asked)

    def against(opponents: Float32[Array, "s h w 3"]) -> tuple[Array, Array]:
        return map_microbatches(answers, (asked, keys, images, opponents), config.microbatches)

    def in_ring(by: Int32[Array, ""]) -> Float32[Array, "s e"]:
        return ring_win_rates(*against(neighbour(images, count, by)), count, by)

    if reference_images is None:
        places = jnp.arange(1, config.online.opponents + 1)
        return jnp.mean(jax.lax.map(in_ring, places), axis=0)
    return jnp.exp(against(repeat_samples(reference_images, count))[0])


def group_metrics(config: RLConfig, batch: Batch, groups: Groups) -> Metrics:
    """Rewards by task and dimension, their spread within groups, and signs of cheating.

    Returns:
      reward: win rates. group_spread: mean standard deviation of the rewards of a group; at 0
      nothing is learned. saturation, edge_density, ...: see `cheating_signs`; left out where there
      is no reference.
    """
    count = config.online.group_size
    names = ("task", "dimension_mask", "image", "mask")
    batch = repeat_samples({name: batch[name] for name in names}, count)
    metrics = {
        "reward": by_task(groups.win_rates, batch["task"], batch["dimension_mask"]),
        "group_spread": mean_of(spread(groups.rewards, count)),
        **groups.held_out,
    }
    if groups.reference_images is not None:
        others = repeat_samples(groups.reference_images, count)
        metrics |= cheating_signs(groups.images, others, batch["image"], batch["mask"])
    return metrics
