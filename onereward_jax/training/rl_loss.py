"""The differentiable part of Algorithms 1 and 2: x'_0, decoding, the judge, and Eq. 5.

The gradient flows: "Yes" logit -> judge -> image preprocessing -> VAE decoder -> x'_0 -> weights
of the policy. Judge, VAE and x_ref get none: they are not what is differentiated.

Single letters: b batch, e dimensions (padded), h, w image height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PyTree

from onereward_jax.policy import predict_x0
from onereward_jax.reward import QueryBatch, jitter_pairs
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, QUOTES_PROMPT, TASKS, Dimension
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch, Draws, Rollout, embeds_of


class Judged(NamedTuple):
    """The outcome of the differentiable part, sample by sample.

    Attributes:
      image: x_θ, in [-1, 1].
      probability: P("Yes" | x_θ, x_ref, q); meaningless where the dimension is padding.
      loss: Eq. 5 averaged over E_k, plus the sample's part of the weighted flow-matching loss.
      matching: the flow-matching loss; 0 where there is no target, or when it is left out.
    """

    image: Float32[Array, "b h w 3"]
    probability: Float32[Array, "b e"]
    loss: Float32[Array, "b"]
    matching: Float32[Array, "b"]


def hinge_loss(
    probability: Float[Array, "b e"],
    dimension_mask: Bool[Array, "b e"],
    upper_bound: float,
    weights: Float32[Array, "b e"] | None = None,
) -> Float32[Array, "b"]:
    """Eq. 5, max(0, λ - P("Yes")), averaged over the dimensions of each sample's task.

    Its slope is 0 from P = λ on (at the kink too), -1 below.

    Args:
      probability: P("Yes").
      dimension_mask: False at padded dimensions.
      upper_bound: λ.
      weights: of the mean; None for the paper's, plain one. One of 0 stands for no question.
    """
    hinge = jax.nn.relu(upper_bound - probability.astype(jnp.float32))
    kept = dimension_mask.astype(jnp.float32)
    if weights is not None:
        dimension_mask = dimension_mask & (weights > 0)
        hinge, kept = weights * hinge, weights * kept
    # A select, not a product: a padded query may well give infinity.
    total = jnp.sum(jnp.where(dimension_mask, hinge, 0.0), axis=-1)
    count = jnp.sum(kept, axis=-1)
    return total / jnp.where(count > 0, count, 1.0)


def dimension_weights(
    weights: tuple[float, ...], task: Int[Array, "b"]
) -> Float32[Array, "b e"] | None:
    """Of `RLConfig`, for the dimensions of each sample's task; None where all are alike.

    The largest of a task is 1, so that equal ones change nothing, not even by rounding.
    """
    if len(set(weights)) == 1:
        return None
    of_dimension = dict(zip(Dimension, weights, strict=True))
    table = np.zeros((len(TASKS), MAX_DIMENSIONS), np.float32)
    for row, name in enumerate(TASKS):
        found = [of_dimension[dimension] for dimension in DIMENSIONS[name]]
        table[row, : len(found)] = np.divide(found, max(found))
    return jnp.asarray(table)[task]


def matching_shares(has_target: Bool[Array, "b"]) -> Float32[Array, "b"]:
    """What a sample's flow-matching loss counts in the mean over the batch.

    0 without a target, and otherwise as much as makes the mean over the batch the mean over the
    samples that have one. To be asked of the whole batch, before it is split.
    """
    known = has_target.astype(jnp.float32)
    return known * known.size / jnp.maximum(jnp.sum(known), 1.0)


def predict_image(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    vae: PyTree,
    batch: Batch,
    rollout: Rollout,
) -> Float32[Array, "b h w 3"]:
    """x_θ: one prediction straight from x_t to x'_0, decoded.

    Clipped to [-1, 1]: the judge learned from image files, and outside of what a file can hold its
    opinion would only be a way to cheat it.
    """
    velocity = models.editor.guided_velocity(
        policy,
        rollout.condition,
        *embeds_of(batch),
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.prediction_true_cfg_scale,
    )
    sigma = jnp.broadcast_to(rollout.sigma, rollout.latents.shape[:1])
    clean = predict_x0(rollout.latents, velocity(rollout.latents, sigma), sigma)
    return models.editor.finish(vae, clean, batch["image"], batch["mask"])


def judge_images(
    models: RLModels,
    judge: PyTree,
    images: Float[Array, "b h w 3"],
    reference_images: Float[Array, "b h w 3"],
    batch: Batch,
) -> Float32[Array, "b e"]:
    """P("Yes" | image, reference image, q) for every dimension."""
    queries = batch
    if models.asks:
        queries = QueryBatch(
            prefix=batch["query_prefix"],
            suffix=batch["query_suffix"],
            suffix_mask=batch["query_suffix_mask"],
        )
    log_yes, _ = models.scorer.score(judge, images, reference_images, queries)
    return jnp.exp(log_yes.astype(jnp.float32))


def judge_prediction(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    frozen: Frozen,
    batch: Batch,
    draws: Draws,
    rollout: Rollout,
    shares: Float32[Array, "b"],
) -> Judged:
    """Everything from the policy's weights to the loss of each sample.

    `shares` are these samples' `matching_shares`.
    """
    image = predict_image(models, config, policy, frozen.vae, batch, rollout)
    prompted = jnp.asarray(QUOTES_PROMPT).any(axis=1)[batch["task"]]
    seen = jitter_pairs(draws.jitter_keys, image, rollout.reference_image, prompted, config.jitter)
    probability = judge_images(models, frozen.judge, *seen, batch)
    weights = dimension_weights(config.dimension_weights, batch["task"])
    loss = hinge_loss(probability, batch["dimension_mask"], config.reward_upper_bound, weights)
    matching = jnp.zeros_like(loss)
    if config.flow_matching_weight:
        prompts, _ = embeds_of(batch)
        known = batch["has_target"]
        target = jnp.where(known[:, None, None, None], batch["target"], 0.0)
        clean = jax.lax.stop_gradient(models.editor.encode_image(frozen.vae, target))
        found = flow_matching_loss(
            models.editor,
            policy,
            clean,
            rollout.condition,
            prompts,
            draws.matching_sigma,
            draws.matching_noise,
            config.guidance_scale,
        )
        matching = jnp.where(known, found, 0.0)
        loss = loss + config.flow_matching_weight * shares * matching
    return Judged(image, probability, loss, matching)
