"""The flow-matching loss on triplets with a target, added to the gradient of an online method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, PyTree

from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.methods.group_rollout import microbatches_of_triplets
from onereward_jax.training.metrics import Mean, Metrics
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch, Draws
from onereward_jax.training.rl_weights import policy_weights
from onereward_jax.training.target_loss import target_loss, target_shares
from onereward_jax.training.train_state import TrainState

Found = tuple[PyTree, Float32[Array, ""], Metrics]
"""Gradient, loss, metrics."""


def add_target_gradients(
    models: RLModels,
    config: RLConfig,
    mesh: Mesh,
    state: TrainState,
    frozen: Frozen,
    batch: Batch,
    draws: Draws,
    found: Found,
) -> Found:
    """`found` with `config.flow_matching_weight` times the mean over the triplets with a target."""
    if not config.flow_matching_weight:
        return found
    editor, triplets = models.editor, batch["image"].shape[0]

    def matching(part: tuple[Batch, Draws, Float32[Array, "_"]]) -> Found:
        batch, draws, shares = part
        condition = editor.encode_condition(frozen.vae, batch["image"], batch["mask"])

        def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Metrics]:
            losses = target_loss(
                editor,
                policy_weights(models, config, params, frozen),
                frozen.vae,
                batch,
                condition,
                draws.matching_sigma,
                draws.matching_noise,
                config.guidance_scale,
            )
            known = jnp.sum(batch["has_target"], dtype=jnp.float32)
            measured = Mean(jnp.sum(losses), known)
            weighted = config.flow_matching_weight * shares * losses
            return jnp.sum(weighted) / triplets, {"flow_matching_loss": measured}

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return gradients, loss, metrics

    gradients, loss, metrics = sum_over_microbatches(
        matching,
        (batch, draws, target_shares(batch["has_target"])),
        microbatches_of_triplets(config, triplets, mesh),
    )
    summed = jax.tree.map(jnp.add, (found[0], found[1]), (gradients, loss))
    return *summed, found[2] | metrics
