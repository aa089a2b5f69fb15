"""The flow-matching loss: the editor's pre-training loss, and a regularizer during RL."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PyTree

from onereward_jax.policy import Condition, FillPolicy, PromptEmbeds, add_noise, velocity_target


def flow_matching_loss(
    editor: FillPolicy,
    transformer: PyTree,
    clean: Float[Array, "b n c"],
    condition: Condition,
    embeds: PromptEmbeds,
    sigma: Float[Array, "b"],
    noise: Float[Array, "b n c"],
    guidance_scale: float = 1.0,
    weights: Float[Array, "b n"] | None = None,
) -> Float32[Array, "b"]:
    """(v(x_σ) - (ε - x_0))², averaged over the tokens and channels of each sample.

    Args:
      editor: the static part of the editor.
      transformer: its parameters, differentiated.
      clean: latents x_0 of the target, from `FillPolicy.encode_image`.
      condition, embeds: fill condition and prompt embeddings.
      sigma: noise levels in [0, 1].
      noise: ε.
      guidance_scale: embedded (distilled) guidance scale.
      weights: of the tokens in the mean, with sum 1 per sample; None: all equal.

    Returns:
      The loss of each sample, [b].
    """
    noisy = add_noise(clean, noise, sigma)
    velocity = editor.velocity(transformer, noisy, condition, embeds, sigma, guidance_scale)
    error = velocity.astype(jnp.float32) - velocity_target(clean, noise)
    if weights is None:
        return jnp.mean(jnp.square(error), axis=(1, 2))
    return jnp.sum(weights * jnp.mean(jnp.square(error), axis=2), axis=1)
