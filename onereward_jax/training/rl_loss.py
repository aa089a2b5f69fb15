"""The differentiable part of Algorithms 1 and 2: x'_0, decoding, the judge, and the loss.

Gradient path: "Yes" logit -> judge -> image preprocessing -> VAE decoder -> x'_0 -> weights of the
policy. Judge, VAE and x_ref are constants.

Shapes: b batch, e dimensions (padded), h, w image height and width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Key, PyTree

from onereward_jax.policy.sampler import VelocityFn
from onereward_jax.reward import jitter_pairs, jitter_source, queries_in
from onereward_jax.tasks import QUOTES_PROMPT
from onereward_jax.training.rl_anchor import anchor_weights, velocity_anchor
from onereward_jax.training.rl_balance import RunningRewards, balanced_loss, dimension_weights
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch, Draws, Rollout, embeds_of
from onereward_jax.training.rl_surrogate import Prediction, predict_clean
from onereward_jax.training.target_loss import target_loss

Answers = tuple[Float32[Array, "b e"], Float32[Array, "b e"]]
"""log P("Yes") and log P("No") for every dimension."""


Seen = tuple[Float32[Array, "b h w 3"], Float32[Array, "b h w 3"], Float32[Array, "b h w 3"]]
"""The pictures that the judge sees: x_θ and x_ref with their jitter, and the source."""


class Judged(NamedTuple):
    """Output of the differentiable part, per sample.

    Attributes:
      image: x_θ, in [-1, 1].
      log_yes, log_no: log P("Yes" | x_θ, x_ref, q) and log P("No" | ...); arbitrary at padded
        dimensions.
      loss: pair loss averaged over E_k (`rl_balance`), plus the sample's share of the weighted
        flow-matching loss, plus the weighted anchor.
      matching: flow-matching loss; 0 without a target, or if it is disabled.
      seen: the pictures that the judge has seen, see `Seen`.
      anchor: see `rl_anchor`; None if it is disabled.
    """

    image: Float32[Array, "b h w 3"]
    log_yes: Float32[Array, "b e"]
    log_no: Float32[Array, "b e"]
    loss: Float32[Array, "b"]
    matching: Float32[Array, "b"]
    seen: Seen
    anchor: Float32[Array, "b"] | None = None


def without_gradient(
    config: RLConfig, log_yes: Float32[Array, "b e"], log_no: Float32[Array, "b e"]
) -> Bool[Array, "b e"]:
    """Which pairs have zero gradient; with Eq. 5 those with P("Yes") >= λ."""

    def total(log_yes: Array, log_no: Array) -> Array:
        return jnp.sum(config.algorithm.loss(log_yes, log_no, config.reward_upper_bound))

    slopes = jax.grad(total, argnums=(0, 1))(log_yes, log_no)
    return (slopes[0] == 0.0) & (slopes[1] == 0.0)


def predict_image(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    vae: PyTree,
    batch: Batch,
    rollout: Rollout,
) -> Float32[Array, "b h w 3"]:
    """x_θ, as the judge sees it."""
    prediction = predict(models, config, policy, batch, rollout)
    return decode_prediction(models, config, vae, batch, prediction.clean)


def predict(
    models: RLModels, config: RLConfig, policy: PyTree, batch: Batch, rollout: Rollout
) -> Prediction:
    """One prediction from x_t directly to x'_0, or another surrogate (`rl_surrogate`)."""
    velocity = prediction_velocity(models, config, policy, batch, rollout)
    return predict_clean(config, velocity, rollout.latents, rollout.sigma, rollout.trajectory)


def prediction_velocity(
    models: RLModels, config: RLConfig, weights: PyTree, batch: Batch, rollout: Rollout
) -> VelocityFn:
    """The guided velocity of the differentiable forward pass."""
    return models.editor.guided_velocity(
        weights,
        rollout.condition,
        *embeds_of(batch),
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.prediction_true_cfg_scale,
    )


def decode_prediction(
    models: RLModels, config: RLConfig, vae: PyTree, batch: Batch, clean: Float32[Array, "b n c"]
) -> Float32[Array, "b h w 3"]:
    """x_θ from clean latents.

    Clipped to [-1, 1]: the judge is trained on image files; values outside that range would only
    make reward hacking easier.
    """
    image = models.editor.finish(vae, clean, batch["image"], batch["mask"])
    if config.gradient_in_mask:
        image = jnp.where(batch["mask"] > 0.5, image, jax.lax.stop_gradient(image))
    return image


def judge_images(
    models: RLModels,
    judge: PyTree,
    images: Float[Array, "b h w 3"],
    reference_images: Float[Array, "b h w 3"],
    source: Float[Array, "b h w 3"],
    batch: Batch,
) -> Answers:
    """log P("Yes" | image, reference image, q) and log P("No" | ...) for every dimension.

    `source` is the picture before the edit, for a judge that sees it.
    """
    queries = batch
    if models.asks:
        queries = queries_in(batch)._replace(source=source, mask=batch["mask"])
    log_yes, log_no = models.scorer.score(judge, images, reference_images, queries)
    return log_yes.astype(jnp.float32), log_no.astype(jnp.float32)


def constant_where_blocked(
    models: RLModels, config: RLConfig, batch: Batch, image: Float32[Array, "b h w 3"]
) -> Float32[Array, "b h w 3"]:
    """x_θ without gradient in pixels from which none reaches the policy: clipped, or the source's.

    For inner products of gradients with respect to the image.
    """
    free = jnp.abs(image) < 1.0
    if models.editor.paste_back or config.gradient_in_mask:
        free &= batch["mask"] > 0.5
    return jnp.where(free, image, jax.lax.stop_gradient(image))


def jittered(
    config: RLConfig,
    keys: Key[Array, "b"],
    images: Float[Array, "b h w 3"],
    reference_images: Float[Array, "b h w 3"],
    batch: Batch,
) -> Seen:
    """Both images with the jitter of `keys`, and the source that goes with them."""
    prompted = jnp.asarray(QUOTES_PROMPT).any(axis=1)[batch["task"]]
    pair = jitter_pairs(keys, images, reference_images, prompted, config.jitter)
    return *pair, jitter_source(keys, batch["image"], prompted, config.jitter)


def judge_pairs(
    models: RLModels,
    config: RLConfig,
    judge: PyTree,
    image: Float32[Array, "b h w 3"],
    batch: Batch,
    draws: Draws,
    rollout: Rollout,
) -> tuple[Answers, Seen]:
    """The judge's answers to x_θ against x_ref, and what it sees of them: with jitter."""
    seen = jittered(config, draws.jitter_keys, image, rollout.reference_image, batch)
    return judge_images(models, judge, *seen, batch), seen


def judge_prediction(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    frozen: Frozen,
    batch: Batch,
    draws: Draws,
    rollout: Rollout,
    shares: Float32[Array, "b"],
    running: RunningRewards | None = None,
) -> Judged:
    """Computes the loss of each sample from the policy's weights.

    `shares` are the `target_shares` of these samples; `running` is that of the state.
    """
    prediction = predict(models, config, policy, batch, rollout)
    image = decode_prediction(models, config, frozen.vae, batch, prediction.clean)

    def losses_of(image: Float32[Array, "b h w 3"]) -> tuple[Float32[Array, "b e"], Any]:
        if config.balance.project != "none":
            image = constant_where_blocked(models, config, batch, image)
        answers, seen = judge_pairs(models, config, frozen.judge, image, batch, draws, rollout)
        return config.algorithm.loss(*answers, config.reward_upper_bound), (answers, seen)

    loss, ((log_yes, log_no), seen) = balanced_loss(
        config.balance,
        losses_of,
        image,
        batch["dimension_mask"],
        dimension_weights(config.dimension_weights, batch["task"], config.balance, running),
        draws.jitter_keys,
    )
    if prediction.weight is not None:
        loss = loss * prediction.weight
    anchor = None
    if config.anchor_weight:
        anchor = _anchor(models, config, frozen, batch, rollout, prediction)
        loss = loss + config.anchor_weight * anchor
    matching = jnp.zeros_like(loss)
    if config.flow_matching_weight:
        matching = target_loss(
            models.editor,
            policy,
            frozen.vae,
            batch,
            rollout.condition,
            draws.matching_sigma,
            draws.matching_noise,
            config.guidance_scale,
        )
        loss = loss + config.flow_matching_weight * shares * matching
    return Judged(image, log_yes, log_no, loss, matching, seen, anchor)


def _anchor(
    models: RLModels,
    config: RLConfig,
    frozen: Frozen,
    batch: Batch,
    rollout: Rollout,
    prediction: Prediction,
) -> Float32[Array, "b"]:
    first = anchor_weights(models, config, frozen)
    velocity = prediction_velocity(models, config, first, batch, rollout)
    latents, sigmas = rollout.latents[None], rollout.sigma[None]
    if rollout.trajectory is not None:
        count = prediction.velocities.shape[0]
        latents, sigmas = rollout.trajectory.latents[:count], rollout.trajectory.sigmas[:count]
    return velocity_anchor(velocity, prediction.velocities, latents, sigmas)
