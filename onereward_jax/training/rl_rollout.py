"""The part of Algorithms 1 and 2 that runs without gradient: draws, x_ref, and x_t.

Single letters: b batch, n image tokens, c channels of a latent token, h, w image height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Key, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.policy import Condition, PromptEmbeds
from onereward_jax.training.rl_config import RLConfig, RLModels

Batch = dict[str, Array]
"""image, target [b,h,w,3], has_target [b], mask [b,h,w,1], (negative_)prompt_embeds,
(negative_)pooled_prompt_embeds, task [b], query_prefix, query_suffix, query_suffix_mask (of a
reward that asks), dimension_mask [b,e], index [b]."""


class Draws(NamedTuple):
    """Everything random of one step, drawn for the whole batch before it is split.

    Attributes:
      reference_noise: ε1.
      policy_noise: ε2.
      matching_noise, matching_sigma: of the flow-matching loss.
      jitter_keys: of what the judge sees.
    """

    reference_noise: Float32[Array, "b n c"]
    policy_noise: Float32[Array, "b n c"]
    matching_noise: Float32[Array, "b n c"]
    matching_sigma: Float32[Array, "b"]
    jitter_keys: Key[Array, "b"]


class Rollout(NamedTuple):
    """What the differentiable part starts from.

    Attributes:
      reference_image: x_ref, in [-1, 1].
      latents: x_t of the policy, at noise level `sigma`.
      sigma: σ_t.
      condition: the fill condition, encoded once for everything.
    """

    reference_image: Float32[Array, "b h w 3"]
    latents: Float32[Array, "b n c"]
    sigma: Float32[Array, ""]
    condition: Condition


def draw(
    models: RLModels, key: PRNGKeyArray, step: Int32[Array, ""], images: Float[Array, "b h w 3"]
) -> Draws:
    """The noises of `step`; each sample has its own, whatever the mesh or the microbatches."""
    batch, *size = images.shape[:3]

    def noise(name: str) -> Float32[Array, "b n c"]:
        drawn = models.editor.noise(stream(key, name, step), batch, tuple(size))
        return nn.with_logical_constraint(drawn, ("batch", "sequence", None))

    return Draws(
        reference_noise=noise("reference_noise"),
        policy_noise=noise("policy_noise"),
        matching_noise=noise("matching_noise"),
        # Logit-normal, as FLUX's relatives were trained: the ends of the path teach little.
        matching_sigma=jax.nn.sigmoid(
            jax.random.normal(stream(key, "matching_sigma", step), (batch,))
        ),
        jitter_keys=jax.random.split(stream(key, "jitter", step), batch),
    )


def draw_index(config: RLConfig, key: PRNGKeyArray, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """t, evenly from [t1, t2]: one for the batch, so that its samples stop together."""
    return jax.random.randint(stream(key, "prediction_index", step), (), config.t1, config.t2 + 1)


def roll_out(
    models: RLModels,
    config: RLConfig,
    policy: PyTree,
    reference: PyTree,
    vae: PyTree,
    batch: Batch,
    draws: Draws,
    index: Int32[Array, ""],
) -> Rollout:
    """Full denoising of ε1 by the reference, and of ε2 by the policy down to sigmas[t].

    Args:
      models, config: static.
      policy, reference: parameters of the transformer.
      vae: parameters of the autoencoder.
      batch: see `Batch`.
      draws: of the same samples as `batch`.
      index: t; a traced number, so one compiled step serves all.

    Returns:
      Constants to differentiation, in all inputs.
    """
    editor = models.editor
    size = batch["image"].shape[1:3]
    sigmas = jnp.asarray(editor.sigmas(config.num_steps, size))
    condition = editor.encode_condition(vae, batch["image"], batch["mask"])
    prompts = (condition, *embeds_of(batch), sigmas)

    reference_latents = editor.denoise(
        reference,
        draws.reference_noise,
        *prompts,
        0,
        config.num_steps,
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.reference_true_cfg_scale,
    )
    latents = editor.denoise(
        policy,
        draws.policy_noise,
        *prompts,
        0,
        index,
        guidance_scale=config.guidance_scale,
        true_cfg_scale=config.policy_true_cfg_scale,
    )
    rollout = Rollout(
        reference_image=editor.finish(vae, reference_latents, batch["image"], batch["mask"]),
        latents=latents,
        sigma=sigmas[index],
        condition=condition,
    )
    return jax.lax.stop_gradient(rollout)


def embeds_of(batch: Batch) -> tuple[PromptEmbeds, PromptEmbeds]:
    """The batch's prompts and negative prompts."""
    return (
        PromptEmbeds(batch["prompt_embeds"], batch["pooled_prompt_embeds"]),
        PromptEmbeds(batch["negative_prompt_embeds"], batch["negative_pooled_prompt_embeds"]),
    )
