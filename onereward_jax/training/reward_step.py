"""Training step of the reward model on labelled pairs, by `preference_loss`."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import (
    MeshFunction,
    batch_sharding,
    check_microbatches,
    mesh_jit,
)
from onereward_jax.reward import Jitter, Scorer, jitter_pairs
from onereward_jax.reward.judge_loader import abstract_reward_params
from onereward_jax.tasks import QUOTES_PROMPT
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.metrics import Metrics, mean_of
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.preference_loss import (
    Pairs,
    answer_both_orders,
    preference_loss,
    preference_metrics,
)
from onereward_jax.training.train_state import (
    TrainState,
    abstract_state,
    jit_step,
    place_state,
)


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Settings of the judge's training (full fine-tuning).

    Attributes:
      microbatches: number of microbatches for gradient accumulation.
      optimizer: the paper: batch 16, learning rate 1e-6.
      words_weight: weight of the language-modelling loss on the question's tokens, mainly a quoted
        prompt. It teaches a judge trained from scratch what words look like; Qwen2.5-VL knows.
      jitter: augmentation of pairs.
      seed: seed of the jitter.
    """

    microbatches: int = 1
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-6)
    words_weight: float = 0.0
    jitter: Jitter = Jitter()
    seed: int = 0


def make_reward_step(scorer: Scorer, config: RewardConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, pairs) -> (state, metrics); the state is donated.

    Only the jitter is random: it depends on the seed and on `state.step`.

    Raises (when first called):
      ValueError: the batch cannot be split as configured.
    """
    optimizer = make_optimizer(config.optimizer)

    def step(state: TrainState, pairs: Pairs) -> tuple[TrainState, Metrics]:
        batch_size = pairs["task"].shape[0]
        check_microbatches(batch_size, config.microbatches, mesh)

        def loss_of(params: PyTree, part: Pairs) -> tuple[Float32[Array, ""], Metrics]:
            answers, words = answer_both_orders(scorer, params, part)
            losses = preference_loss(answers, part["label"])
            metrics = {"loss": mean_of(losses), **preference_metrics(answers, part)}
            if config.words_weight:
                metrics["words_loss"] = mean_of(-words)
                losses = losses - config.words_weight * words
            return jnp.sum(losses) / batch_size, metrics

        pairs = jittered(config, state.step, pairs)
        (loss, metrics), gradients = sum_over_microbatches(
            lambda part: jax.value_and_grad(loss_of, has_aux=True)(state.params, part),
            pairs,
            config.microbatches,
        )
        return apply_gradients(state, loss, gradients, optimizer, metrics)

    return jit_step(step, abstract_reward_state(scorer, config, mesh), mesh)


def jittered(config: RewardConfig, step: Int32[Array, ""], pairs: Pairs) -> Pairs:
    """Applies jitter to the pairs of `step`, with one key per pair."""
    keys = jax.random.split(stream(config.seed, "jitter", step), pairs["task"].shape[0])
    prompted = jnp.asarray(QUOTES_PROMPT)[pairs["task"], pairs["dimension"]]
    first, second = jitter_pairs(keys, pairs["first"], pairs["second"], prompted, config.jitter)
    return pairs | {"first": first, "second": second}


def make_answers(scorer: Scorer, mesh: Mesh) -> MeshFunction:
    """The jitted function (params, pairs) -> `PairAnswers`, for held-out pairs."""
    return mesh_jit(
        lambda params, pairs: answer_both_orders(scorer, params, pairs)[0],
        mesh,
        out_shardings=batch_sharding(mesh),
    )


def abstract_reward_state(scorer: Scorer, config: RewardConfig, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state, for restoring and ahead-of-time compilation."""
    optimizer = make_optimizer(config.optimizer)
    return abstract_state(abstract_reward_params(scorer, mesh), optimizer, mesh, with_ema=False)


def first_reward_state(config: RewardConfig, params: PyTree, mesh: Mesh) -> TrainState:
    """The initial state from the pre-trained judge; `params` is copied, not donated."""
    return place_state(params, make_optimizer(config.optimizer), mesh, with_ema=False)
