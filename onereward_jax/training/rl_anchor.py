"""The anchor: how far the policy's velocities have moved from those of its initial weights.

For each sample, on the policy's own x_t and under the guidance of the prediction,

    mean over tokens and channels of (v_θ(x_t) - v_first(x_t))²,

the KL term of DiffusionNFT (arXiv 2509.16117, as in its published code). It bounds how far the
policy moves where it goes, instead of pulling its weights or its pictures towards a target. The
method "nft" has it at the noised samples, over the tokens of its loss; "grpo" has Flow-GRPO's own,
`flow_sde.step_divergence`.

Shapes: b batch, n image tokens, c channels of a latent token, k steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PyTree

from onereward_jax.policy.sampler import VelocityFn
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_surrogate import velocities_at


def anchor_weights(models: RLModels, config: RLConfig, frozen: Frozen) -> PyTree:
    """The policy's initial weights, in the compute dtype: with LoRA the base, else π_ref.

    `RLConfig` has an anchor only where they are in memory.
    """
    first = frozen.reference if config.lora is None else frozen.base
    return cast_params(first, models.editor.transformer.dtype)


def velocity_anchor(
    first: VelocityFn,
    found: Float32[Array, "k b n c"],
    latents: Float32[Array, "k b n c"],
    sigmas: Float32[Array, "k"],
) -> Float32[Array, "b"]:
    """The squared distance above, averaged over the steps.

    Args:
      first: guided velocity of the initial weights; gets no gradient.
      found: v_θ at `latents`, differentiated.
      latents, sigmas: x_t and σ_t, without gradient.
    """
    wanted = jax.lax.stop_gradient(velocities_at(first, latents, sigmas))
    return jnp.mean(jnp.square(found - wanted), axis=(0, 2, 3))
