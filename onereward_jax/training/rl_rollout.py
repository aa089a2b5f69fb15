"""The part of Algorithms 1 and 2 without gradient: random draws, x_ref, and x_t.

Shapes: b batch, n image tokens, c channels of a latent token, h, w image height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, Key, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.policy import Condition, PromptEmbeds
from onereward_jax.policy.generate import seeded_noise
from onereward_jax.training.rl_config import RLConfig, RLModels
from onereward_jax.training.rl_surrogate import Trajectory, draw_active, step_weights

Batch = dict[str, Array]
"""image, target [b,h,w,3], has_target [b], mask [b,h,w,1], (negative_)prompt_embeds,
(negative_)pooled_prompt_embeds, task [b], query_prefix, query_suffix, query_suffix_mask (if the
reward gets questions), query_box [b,4] (if it sees a crop), dimension_mask [b,e], index [b];
reference [b,h,w,3] and reference_seed [b], the seed of its noise, if `references` is "bank"."""


class Draws(NamedTuple):
    """All random draws of one step, for the whole batch before it is split into microbatches.

    Attributes:
      reference_noise: ε1.
      policy_noise: ε2.
      matching_noise, matching_sigma: noise and noise level of the flow-matching loss.
      jitter_keys: keys of the jitter of the judge's input images.
    """

    reference_noise: Float32[Array, "b n c"]
    policy_noise: Float32[Array, "b n c"]
    matching_noise: Float32[Array, "b n c"]
    matching_sigma: Float32[Array, "b"]
    jitter_keys: Key[Array, "b"]


class Rollout(NamedTuple):
    """Inputs of the differentiable part.

    Attributes:
      reference_image: x_ref, in [-1, 1].
      latents: x_t of the policy, at noise level `sigma`; the first of several active steps.
      sigma: σ_t.
      condition: the fill condition, encoded once per step.
      trajectory: the policy's whole rollout; None for the surrogate "single".
    """

    reference_image: Float32[Array, "b h w 3"]
    latents: Float32[Array, "b n c"]
    sigma: Float32[Array, ""]
    condition: Condition
    trajectory: Trajectory | None = None


def draw(
    models: RLModels, key: PRNGKeyArray, step: Int32[Array, ""], images: Float[Array, "b h w 3"]
) -> Draws:
    """The random draws of `step`; per sample, independent of mesh and microbatches."""
    batch, *size = images.shape[:3]

    def noise(name: str) -> Float32[Array, "b n c"]:
        drawn = models.editor.noise(stream(key, name, step), batch, tuple(size))
        return nn.with_logical_constraint(drawn, ("batch", "sequence", None))

    return Draws(
        reference_noise=noise("reference_noise"),
        policy_noise=noise("policy_noise"),
        matching_noise=noise("matching_noise"),
        # Logit-normal (SD3, arXiv 2403.03206): noise levels near 0 and 1 teach little.
        matching_sigma=jax.nn.sigmoid(
            jax.random.normal(stream(key, "matching_sigma", step), (batch,))
        ),
        jitter_keys=jax.random.split(stream(key, "jitter", step), batch),
    )


def draw_index(
    config: RLConfig, key: PRNGKeyArray, step: Int32[Array, ""]
) -> Int32[Array, ""] | Int32[Array, "k"]:
    """t, uniform in [t1, t2]; one draw per batch, so that all samples take equally many steps.

    Of other surrogates than "single" all active steps, see `rl_surrogate.draw_active`.
    """
    drawn = stream(key, "prediction_index", step)
    index = jax.random.randint(drawn, (), config.t1, config.t2 + 1)
    return index if config.surrogate == "single" else draw_active(config, key, step, index)


def roll_out(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    reference: PyTree | None,
    vae: PyTree,
    batch: Batch,
    draws: Draws,
    index: Int[Array, ""] | Int[Array, "k"],
) -> Rollout:
    """The reference denoises ε1 fully; the policy denoises ε2 down to sigmas[t], or to the end.

    Args:
      models, config: static.
      policy, reference: parameters of the transformer; no reference if its pictures come from a
        bank.
      vae: parameters of the autoencoder.
      batch: see `Batch`.
      draws: random draws for the samples of `batch`.
      index: t, or the active steps; traced, so that the step is compiled only once.

    Returns:
      The rollout, with `stop_gradient` applied.
    """
    editor = models.editor
    size = batch["image"].shape[1:3]
    sigmas = jnp.asarray(editor.sigmas(config.num_steps, size))
    condition = editor.encode_condition(vae, batch["image"], batch["mask"])
    prompts = (condition, *embeds_of(batch), sigmas)

    noise = policy_noise(models, config, batch, draws, condition)
    guidance = {
        "guidance_scale": config.guidance_scale,
        "true_cfg_scale": config.policy_true_cfg_scale,
    }
    if config.surrogate == "single":
        trajectory = None
        latents = editor.denoise(policy, noise, *prompts, 0, index, **guidance)
    else:
        finished, found = editor.trajectory(policy, noise, *prompts, **guidance)
        weights = step_weights(config, sigmas, index)
        trajectory = Trajectory(finished, found[index], sigmas[index], weights)
        latents, index = trajectory.latents[0], index[0]
    rollout = Rollout(
        reference_image=reference_images(
            models, config, reference, vae, batch, draws.reference_noise, condition
        ),
        latents=latents,
        sigma=sigmas[index],
        condition=condition,
        trajectory=trajectory,
    )
    return jax.lax.stop_gradient(rollout)


def reference_images(
    models: RLModels,
    config: RLConfig,
    reference: PyTree | None,
    vae: PyTree,
    batch: Batch,
    noise: Float32[Array, "b n c"],
    condition: Condition,
) -> Float32[Array, "b h w 3"]:
    """x_ref, in [-1, 1]: `noise` fully denoised by the reference and decoded, or of the bank."""
    if config.references == "bank":
        return batch["reference"]
    editor, size = models.editor, batch["image"].shape[1:3]
    latents = editor.denoise(
        reference,
        noise,
        condition,
        *embeds_of(batch),
        jnp.asarray(editor.sigmas(config.num_steps, size)),
        0,
        config.num_steps,
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.reference_true_cfg_scale,
    )
    return editor.finish(vae, latents, batch["image"], batch["mask"])


def policy_noise(
    models: RLModels, config: RLConfig, batch: Batch, draws: Draws, condition: Condition
) -> Float32[Array, "b n c"]:
    """ε2, or as much of ε1 as `config.shared_noise` says; with a bank the ε1 of its picture."""
    if config.shared_noise == "none":
        return draws.policy_noise
    first = draws.reference_noise
    if config.references == "bank":
        first = seeded_noise(models.editor, batch["reference_seed"], batch["image"].shape[1:3])
    if config.shared_noise == "all":
        return first
    mask = condition.tokens[..., models.editor.latent_channels :]
    inside = jnp.any(mask > 0.5, axis=-1, keepdims=True)
    return jnp.where(inside, draws.policy_noise, first)


def embeds_of(batch: Batch) -> tuple[PromptEmbeds, PromptEmbeds]:
    """The embeddings of the prompts and the negative prompts."""
    return (
        PromptEmbeds(batch["prompt_embeds"], batch["pooled_prompt_embeds"]),
        PromptEmbeds(batch["negative_prompt_embeds"], batch["negative_pooled_prompt_embeds"]),
    )
