"""Supervised flow matching on the pictures that won: the baseline without any reward.

    L(θ) = E_(pair, σ, ε) w_e mean over tokens |v_θ(x_σ) - (ε - x_w)|²,   x_σ = (1 - σ) x_w + σ ε

x_w are the latents of the pair's winner, w_e the weight of its dimension, σ logit-normal (SD3,
arXiv 2403.03206). Each dimension's winner counts: a candidate that wins in three dimensions is
three pairs. What the pictures are, see `pair_batch`; labels below 1 count as certain.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import MeshFunction
from onereward_jax.policy import Condition
from onereward_jax.training.algorithm import DYNAMIC
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.methods.method import Method
from onereward_jax.training.methods.pair_batch import (
    PairBatch,
    area_weights,
    by_dimension,
    pair_weights,
)
from onereward_jax.training.methods.policy_step import make_policy_step
from onereward_jax.training.metrics import Metrics
from onereward_jax.training.model_flops import matching_model_flops
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_rollout import embeds_of
from onereward_jax.training.rl_weights import policy_weights
from onereward_jax.training.train_state import TrainState


class Draws(NamedTuple):
    """Noise ε and noise levels σ of the pairs of a step."""

    noise: Float32[Array, "b n c"]
    sigma: Float32[Array, "b"]


def draw_noise(
    models: RLModels, key: PRNGKeyArray, step: Int32[Array, ""], batch: PairBatch
) -> Float32[Array, "b n c"]:
    """ε for each pair of the batch; independent of mesh and microbatches."""
    count, *size = batch["image"].shape[:3]
    noise = models.editor.noise(stream(key, "matching_noise", step), count, tuple(size))
    return nn.with_logical_constraint(noise, ("batch", "sequence", None))


def make_step(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step on pairs, see `policy_step.make_policy_step`."""

    def draw(key: PRNGKeyArray, step: Int32[Array, ""], batch: PairBatch) -> Draws:
        normal = jax.random.normal(stream(key, "matching_sigma", step), batch["task"].shape)
        return Draws(draw_noise(models, key, step, batch), jax.nn.sigmoid(normal))

    def losses(
        params: PyTree,
        state: TrainState,
        frozen: Frozen,
        batch: PairBatch,
        condition: Condition,
        draws: Draws,
    ) -> tuple[Float32[Array, "b"], Metrics]:
        editor = models.editor
        clean = jax.lax.stop_gradient(editor.encode_image(frozen.vae, batch["winner"]))
        errors = flow_matching_loss(
            editor,
            policy_weights(models, config, params, frozen),
            clean,
            condition,
            embeds_of(batch)[0],
            draws.sigma,
            draws.noise,
            config.guidance_scale,
            area_weights(editor, batch["mask"], config.error_area),
        )
        found = pair_weights(config, batch) * errors
        return found, {"winner_error": by_dimension(errors, batch)}

    return make_policy_step(models, config, mesh, draw, losses)


WINNERS = Method(
    # The average costs no second transformer; only samples and the distance refer to it.
    algorithm=DYNAMIC,
    make_step=make_step,
    model_flops=functools.partial(matching_model_flops, pictures=1, reference=False),
    passes=lambda config: 2.0 if config.lora else 3.0,
    batches="pairs",
    asks=False,
)
