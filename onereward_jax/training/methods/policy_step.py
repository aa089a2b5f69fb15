"""The step that methods share: draw, sum gradients over microbatches, update, measure.

`RLConfig.flow_matching_weight` adds the flow-matching loss on the targets of the triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import MeshFunction, batch_sharding, check_microbatches, replicated
from onereward_jax.policy import Condition
from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.metrics import Mean, Metrics, mean_of
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.policy_update import update_policy
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import Batch
from onereward_jax.training.rl_step import abstract_rl_state
from onereward_jax.training.rl_weights import check_frozen, policy_weights
from onereward_jax.training.target_loss import target_loss, target_shares
from onereward_jax.training.train_state import TrainState, jit_step

Draw = Callable[[PRNGKeyArray, Int32[Array, ""], Batch], PyTree]
"""(key of the run, step, whole batch) -> random draws, arrays [b, ...]."""

Losses = Callable[
    [PyTree, TrainState, Frozen, Batch, Condition, PyTree], tuple[Float32[Array, "b"], Metrics]
]
"""(trained weights, state, frozen, part of the batch, its encoded condition, its draws) -> loss of
each sample, metrics.

Differentiated with respect to the first argument. The mean over the batch, with the flow-matching
term, is minimised and is the metric `loss`. Metrics are sums over the samples of the part, see
`metrics.Mean`."""


class TargetDraws(NamedTuple):
    """Noise ε and noise levels σ, logit-normal, for the targets of a step, and `target_shares`."""

    noise: Float32[Array, "b n c"]
    sigma: Float32[Array, "b"]
    shares: Float32[Array, "b"]


def make_policy_step(
    models: RLModels, config: RLConfig, mesh: Mesh, draw: Draw, losses: Losses
) -> MeshFunction:
    """The jitted step (state, frozen, batch, key) -> (state, metrics) of a method.

    `state` is donated. `key` is the key of the run; random draws depend on `key` and `state.step`
    only, and are made for the whole batch before it is split, so that they depend neither on the
    mesh nor on the number of microbatches. Gradients and metrics are summed over microbatches.

    Raises (when first called):
      ValueError: the batch cannot be split as configured, or the transformers in `frozen` do not
        match `config`.
    """
    optimizer = make_optimizer(config.optimizer)
    with_targets = config.flow_matching_weight > 0

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        check_frozen(config, frozen)
        batch_size = batch["image"].shape[0]
        check_microbatches(batch_size, config.microbatches, mesh)

        of_targets = _draw_targets(models, key, state.step, batch) if with_targets else None
        drawn = draw(key, state.step, batch), of_targets

        def gradients_of(part: tuple[Batch, Any]) -> tuple[PyTree, Float32[Array, ""], Metrics]:
            batch, (draws, of_targets) = part
            condition = models.editor.encode_condition(frozen.vae, batch["image"], batch["mask"])

            def loss_of(params: PyTree) -> tuple[Float32[Array, ""], Metrics]:
                found, metrics = losses(params, state, frozen, batch, condition, draws)
                if of_targets is not None:
                    weights = policy_weights(models, config, params, frozen)
                    matching = target_loss(
                        models.editor,
                        weights,
                        frozen.vae,
                        batch,
                        condition,
                        of_targets.sigma,
                        of_targets.noise,
                        config.guidance_scale,
                    )
                    found = found + config.flow_matching_weight * of_targets.shares * matching
                    known = jnp.sum(batch["has_target"], dtype=jnp.float32)
                    metrics |= {"flow_matching_loss": Mean(jnp.sum(matching), known)}
                metrics |= {"loss": mean_of(found)}
                return jnp.sum(found) / batch_size, metrics

            (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
            return gradients, loss, metrics

        gradients, loss, metrics = sum_over_microbatches(
            gradients_of, (batch, drawn), config.microbatches
        )
        return update_policy(config, optimizer, state, frozen, gradients, loss, metrics)

    others = (None, batch_sharding(mesh), replicated(mesh))
    return jit_step(step, abstract_rl_state(models, config, mesh), mesh, *others)


def _draw_targets(
    models: RLModels, key: PRNGKeyArray, step: Int32[Array, ""], batch: Batch
) -> TargetDraws:
    count, *size = batch["image"].shape[:3]
    noise = models.editor.noise(stream(key, "target_noise", step), count, tuple(size))
    normal = jax.random.normal(stream(key, "target_sigma", step), (count,))
    return TargetDraws(
        nn.with_logical_constraint(noise, ("batch", "sequence", None)),
        jax.nn.sigmoid(normal),
        target_shares(batch["has_target"]),
    )
