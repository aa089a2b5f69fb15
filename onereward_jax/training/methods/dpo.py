"""Masked Diffusion-DPO on stored pairs of winner and loser (arXiv 2311.12908, Eq. 14).

    L(θ) = -E log σ(-(β / 2) [ (e_θ(x_w) - e_ref(x_w)) - (e_θ(x_l) - e_ref(x_l)) ])

e(x) is the squared error of the velocity at x_σ = (1 - σ) x + σ ε. Eq. 14 has the error of the
noise; for flow matching it is that of the velocity (Flow-DPO, arXiv 2501.13918, with the weight of
the noise levels constant). Here e is the mean over the channels and over the latent tokens inside
the mask: outside it, both pictures show the source. βTω(λ_t) of Eq. 14 is β / 2, and σ is uniform
in [0, 1]; both pictures of a pair have the same σ and ε, as in the authors' code. The reference is
the initial policy.

A label y below 1 (`config.reward.consensus` = "soft") is the probability that the winner is better:
the loss is then the cross-entropy -y log σ(m) - (1 - y) log σ(-m) for the margin m above.

The loss alone may make winners less likely too, as long as losers get less likely still
(`winner_gain` and `loser_gain` below 0): `config.rl.flow_matching_weight`, see `policy_step`, keeps
the policy at the targets of the triplets (ours).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import MeshFunction
from onereward_jax.policy import Condition, PromptEmbeds
from onereward_jax.training.algorithm import FROZEN
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.methods.method import Method
from onereward_jax.training.methods.pair_batch import (
    PairBatch,
    area_weights,
    by_dimension,
    pair_weights,
)
from onereward_jax.training.methods.policy_step import make_policy_step
from onereward_jax.training.methods.winners import Draws, draw_noise
from onereward_jax.training.metrics import Metrics, mean_of
from onereward_jax.training.model_flops import matching_model_flops
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import embeds_of
from onereward_jax.training.rl_weights import policy_weights, reference_weights
from onereward_jax.training.train_state import TrainState


def dpo_loss(margin: Float[Array, "b"], label: Float[Array, "b"]) -> Float32[Array, "b"]:
    """-y log σ(m) - (1 - y) log σ(-m); Eq. 14 for y = 1."""
    return -label * jax.nn.log_sigmoid(margin) - (1.0 - label) * jax.nn.log_sigmoid(-margin)


def make_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step on pairs, see `policy_step.make_policy_step`."""

    def draw(key: PRNGKeyArray, step: Int32[Array, ""], batch: PairBatch) -> Draws:
        sigma = jax.random.uniform(stream(key, "matching_sigma", step), batch["task"].shape)
        return Draws(draw_noise(models, key, step, batch), sigma)

    def losses(
        params: PyTree,
        state: TrainState,
        frozen: Frozen,
        batch: PairBatch,
        condition: Condition,
        draws: Draws,
    ) -> tuple[Float32[Array, "b"], Metrics]:
        policy = policy_weights(models, config, params, frozen)
        reference = reference_weights(models, config, state, frozen)
        errors = _both_errors(models, config, frozen.vae, batch, condition, draws)
        # How much better than the reference's the policy's predictions are, [b, 2].
        gain = jax.lax.stop_gradient(errors(reference)) - errors(policy)
        margin = 0.5 * config.dpo_beta * (gain[:, 0] - gain[:, 1])
        found = pair_weights(config, batch) * dpo_loss(margin, batch["label"])
        right = (margin > 0).astype(jnp.float32)
        return found, {
            "implicit_accuracy": by_dimension(right, batch),
            "winner_gain": mean_of(gain[:, 0]),
            "loser_gain": mean_of(gain[:, 1]),
        }

    return make_policy_step(models, config, mesh, draw, losses)


def _both_errors(
    models: RLModels,
    config: RLConfig,
    vae: PyTree,
    batch: PairBatch,
    condition: Condition,
    draws: Draws,
) -> Callable[[PyTree], Float32[Array, "b 2"]]:
    """Transformer -> errors of the winner and of the loser, at the same noise.

    Both pictures of a pair are neighbours in a batch of 2b, so that they stay on one device.
    """
    editor = models.editor

    def twice(array: Array) -> Array:
        return jnp.repeat(array, 2, axis=0)

    pictures = jnp.stack([batch["winner"], batch["loser"]], axis=1)
    pictures = pictures.reshape(-1, *pictures.shape[2:])
    clean = jax.lax.stop_gradient(editor.encode_image(vae, pictures))
    prompts = PromptEmbeds(*map(twice, embeds_of(batch)[0]))
    weights = area_weights(editor, batch["mask"], config.error_area)

    def errors(transformer: PyTree) -> Float32[Array, "b 2"]:
        return flow_matching_loss(
            editor,
            transformer,
            clean,
            Condition(twice(condition.tokens), condition.ids),
            prompts,
            twice(draws.sigma),
            twice(draws.noise),
            config.guidance_scale,
            twice(weights),
        ).reshape(-1, 2)

    return errors


DPO = Method(
    algorithm=FROZEN,
    make_step=make_step,
    model_flops=functools.partial(matching_model_flops, pictures=2, reference=True),
    passes=lambda config: 2.0 * ((2 if config.lora else 3) + 1),
    batches="pairs",
    asks=False,
)
