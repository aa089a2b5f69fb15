"""The flow-matching loss: what the editor was pre-trained with, and an anchor during RL."""

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
) -> Float32[Array, "b"]:
    """‖v(x_σ) - (ε - x_0)‖², averaged over the tokens and channels of each sample.

    Args:
      editor: the static half.
      transformer: its parameters, differentiated.
      clean: latents x_0 of the wanted result, from `FillPolicy.encode_image`.
      condition, embeds: of source, mask and prompt.
      sigma: noise levels in [0, 1].
      noise: ε.
      guidance_scale: the embedded scale.
    """
    noisy = add_noise(clean, noise, sigma)
    velocity = editor.velocity(transformer, noisy, condition, embeds, sigma, guidance_scale)
    error = velocity.astype(jnp.float32) - velocity_target(clean, noise)
    return jnp.mean(jnp.square(error), axis=(1, 2))
