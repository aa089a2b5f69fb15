"""The flow-matching loss on the targets of triplets, which methods add to their own loss.

Shapes: b batch, n latent tokens, c their channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, PyTree

from onereward_jax.policy import Condition, FillPolicy
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.rl_rollout import Batch, embeds_of


def target_loss(
    editor: FillPolicy,
    policy: PyTree,
    vae: PyTree,
    batch: Batch,
    condition: Condition,
    sigma: Float[Array, "b"],
    noise: Float[Array, "b n c"],
    guidance_scale: float,
) -> Float32[Array, "b"]:
    """The loss of each triplet on `batch["target"]`; 0 without a target."""
    known = batch["has_target"]
    target = jnp.where(known[:, None, None, None], batch["target"], 0.0)
    clean = jax.lax.stop_gradient(editor.encode_image(vae, target))
    prompts, _ = embeds_of(batch)
    found = flow_matching_loss(
        editor, policy, clean, condition, prompts, sigma, noise, guidance_scale
    )
    return jnp.where(known, found, 0.0)


def target_shares(has_target: Bool[Array, "b"]) -> Float32[Array, "b"]:
    """Weight of each sample's loss in the mean over the batch.

    0 without a target. The weights make the mean over the batch equal to the mean over the samples
    with a target. Compute them on the whole batch, before it is split into microbatches.
    """
    known = has_target.astype(jnp.float32)
    return known * known.size / jnp.maximum(jnp.sum(known), 1.0)
