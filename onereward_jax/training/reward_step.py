"""Training step of the reward model on labelled pairs, by `preference_loss`."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.convert import QWEN2_5_VL, abstract_adapter
from onereward_jax.models.lora import Adapted, LoraConfig, scale_factors
from onereward_jax.parallel import (
    MeshFunction,
    batch_sharding,
    check_microbatches,
    mesh_jit,
)
from onereward_jax.reward import Jitter, Scorer, jitter_pairs, jitter_source
from onereward_jax.reward.judge_loader import abstract_reward_params
from onereward_jax.tasks import QUOTES_PROMPT
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.metrics import Metrics, mean_of
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.preference_loss import (
    PairAnswers,
    Pairs,
    answer_both_orders,
    preference_loss,
    preference_metrics,
    smoothed_label,
)
from onereward_jax.training.train_state import (
    TrainState,
    abstract_state,
    jit_step,
    place_state,
)


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Settings of the judge's training.

    Attributes:
      lora: trains an adapter; None: full fine-tuning, as in the paper.
      microbatches: number of microbatches for gradient accumulation.
      optimizer: the paper: batch 16, learning rate 1e-6.
      words_weight: weight of the language-modelling loss on the question's tokens, mainly a quoted
        prompt. It teaches a judge trained from scratch what words look like; Qwen2.5-VL knows.
      label_smoothing: s of `smoothed_label`; 0: labels as they are.
      jitter: augmentation of pairs.
      seed: seed of the jitter.
    """

    lora: LoraConfig | None = None
    microbatches: int = 1
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-6)
    words_weight: float = 0.0
    label_smoothing: float = 0.0
    jitter: Jitter = Jitter()
    seed: int = 0


def make_reward_step(scorer: Scorer, config: RewardConfig, mesh: Mesh) -> MeshFunction:
    """The jitted step (state, pairs, base) -> (state, metrics); the state is donated.

    With `config.lora`, `state.params` are the factors of an adapter of `base`, the weights of the
    pre-trained judge, which get no gradient. Otherwise they are the judge's, and there is no `base`
    argument.

    Only the jitter is random: it depends on the seed and on `state.step`.

    Raises (when first called):
      ValueError: the batch cannot be split as configured.
    """
    optimizer = make_optimizer(config.optimizer)

    def step(
        state: TrainState, pairs: Pairs, base: PyTree | None = None
    ) -> tuple[TrainState, Metrics]:
        batch_size = pairs["task"].shape[0]
        check_microbatches(batch_size, config.microbatches, mesh)

        def loss_of(params: PyTree, part: Pairs) -> tuple[Float32[Array, ""], Metrics]:
            weights = judge_weights(config, params, base)
            answers, words = answer_both_orders(scorer, weights, part)
            label = part["label"]
            if config.label_smoothing:
                label = smoothed_label(label, config.label_smoothing)
            losses = preference_loss(answers, label)
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

    others = (batch_sharding(mesh),) if config.lora is None else (batch_sharding(mesh), None)
    return jit_step(step, abstract_reward_state(scorer, config, mesh), mesh, *others)


def judge_weights(config: RewardConfig, params: PyTree, base: PyTree | None) -> PyTree | Adapted:
    """The judge for `state.params`; differentiable in `params`."""
    if config.lora is None:
        return params
    return Adapted(base, scale_factors(params, config.lora.scale))


def jittered(config: RewardConfig, step: Int32[Array, ""], pairs: Pairs) -> Pairs:
    """Applies jitter to the pairs of `step`, with one key per pair."""
    keys = jax.random.split(stream(config.seed, "jitter", step), pairs["task"].shape[0])
    prompted = jnp.asarray(QUOTES_PROMPT)[pairs["task"], pairs["dimension"]]
    first, second = jitter_pairs(keys, pairs["first"], pairs["second"], prompted, config.jitter)
    pairs = pairs | {"first": first, "second": second}
    if "query_source" in pairs:
        source = jitter_source(keys, pairs["query_source"], prompted, config.jitter)
        pairs["query_source"] = source
    return pairs


def make_answers(scorer: Scorer, config: RewardConfig, mesh: Mesh) -> MeshFunction:
    """The jitted function (params, pairs, base) -> `PairAnswers`, for held-out pairs.

    Arguments as of `make_reward_step`.
    """

    def answer(params: PyTree, pairs: Pairs, base: PyTree | None = None) -> PairAnswers:
        return answer_both_orders(scorer, judge_weights(config, params, base), pairs)[0]

    return mesh_jit(answer, mesh, out_shardings=batch_sharding(mesh))


def abstract_reward_state(scorer: Scorer, config: RewardConfig, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state, for restoring and ahead-of-time compilation."""
    params = abstract_reward_params(scorer, mesh)
    if config.lora is not None:
        params = abstract_adapter(params, QWEN2_5_VL, config.lora)
    return abstract_state(params, make_optimizer(config.optimizer), mesh, with_ema=False)


def first_reward_state(config: RewardConfig, params: PyTree, mesh: Mesh) -> TrainState:
    """The initial state from the pre-trained judge, or a new adapter; `params` is not donated."""
    return place_state(params, make_optimizer(config.optimizer), mesh, with_ema=False)
