"""What the reinforcement step is given: settings, models, and weights that never change.

Symbols of Section 3 of the paper (arXiv 2508.21066): λ `reward_upper_bound`, τ `ema_decay`,
[t1, t2] `t1` and `t2`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from jaxtyping import PyTree

from onereward_jax.models.lora import LoraConfig
from onereward_jax.policy import FillPolicy
from onereward_jax.reward import Jitter, PairScorer
from onereward_jax.tasks import DIMENSIONS, Dimension
from onereward_jax.training.algorithm import FROZEN, Algorithm
from onereward_jax.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class RLConfig:
    """Settings of multi-task reward feedback learning.

    Attributes:
      algorithm: where x_ref comes from and what a pair costs: `algorithm.FROZEN`, `DYNAMIC`, or
        one of your own.
      reward_upper_bound: λ of Eq. 5; a pair with P("Yes") above it gives no gradient.
      dimension_weights: of the dimensions in the mean over E_k of Eq. 5, in the order of
        `tasks.Dimension`; only their proportions within a task count.
      ema_decay: τ.
      num_steps: Euler steps of the sampling grid, for policy and reference.
      t1, t2: both included: the policy takes t steps without gradient,
        t drawn evenly from [t1, t2], and predicts x'_0 from noise level sigmas[t].
      guidance_scale: embedded guidance, for all forwards.
      reference_true_cfg_scale: true guidance of the reference rollout; 1.0 leaves it out.
      policy_true_cfg_scale: the same of the policy rollout.
      prediction_true_cfg_scale: the same of the one differentiable forward. Other than 1.0, the
        negative branch is differentiated as well, at twice the memory.
      flow_matching_weight: of the flow-matching loss on `batch["target"]`, averaged over the
        samples that have one; 0 leaves it out.
      jitter: of x_θ and x_ref, for the judge's eyes.
      microbatches: parts of the batch that go through one after the other.
      optimizer: see `OptimizerConfig`.
      lora: the adapter that is trained in place of the whole transformer. Its base without it is
        the reference of Algorithm 1, with the adapter's average that of Algorithm 2.

    Raises:
      ValueError: naming the field that is out of range.
    """

    algorithm: Algorithm = FROZEN
    reward_upper_bound: float = 0.9
    dimension_weights: tuple[float, ...] = (1.0,) * len(Dimension)
    ema_decay: float = 0.999
    num_steps: int = 40
    t1: int = 30
    t2: int = 39
    guidance_scale: float = 1.0
    reference_true_cfg_scale: float = 4.0
    policy_true_cfg_scale: float = 4.0
    prediction_true_cfg_scale: float = 4.0
    flow_matching_weight: float = 0.0
    jitter: Jitter = Jitter()
    microbatches: int = 1
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.t1 <= self.t2 < self.num_steps:
            raise ValueError(
                f"t1 is {self.t1} and t2 is {self.t2}: indices of the sampling grid are expected, "
                f"0 <= t1 <= t2 < num_steps, {self.num_steps}"
            )
        weights = dict(zip(Dimension, self.dimension_weights, strict=True))
        for dimension, weight in weights.items():
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"dimension_weights.{dimension} is {weight}, at least 0 expected")
        for task, dimensions in DIMENSIONS.items():
            if not any(weights[dimension] for dimension in dimensions):
                raise ValueError(
                    f"dimension_weights are 0 for all dimensions of {task.title}: leave that to "
                    f"task_probabilities.{task.value}, if it is not to be trained"
                )
        if not 0.0 <= self.ema_decay <= 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}, expected in [0, 1]")
        if self.flow_matching_weight < 0.0:
            raise ValueError(f"flow_matching_weight is {self.flow_matching_weight}, below 0")
        if self.microbatches < 1:
            raise ValueError(f"microbatches is {self.microbatches}, at least 1 expected")


@dataclasses.dataclass(frozen=True)
class RLModels:
    """The static halves of all models of the step; weights are arguments.

    Attributes:
      editor: policy and reference.
      scorer: the reward, see `reward.reward_interface`.
      asks: whether it is given questions; otherwise the batch.
    """

    editor: FillPolicy
    scorer: PairScorer
    asks: bool = True


class Frozen(NamedTuple):
    """Weights that get no gradient; arguments of the jitted step, never constants in it.

    Attributes:
      reference: the transformer of π_ref where that is the first policy; None where it is the
        average, and with an adapter.
      vae: the autoencoder.
      judge: of the reward model φ, or of another reward.
      base: the transformer that an adapter is trained for; None without one.
    """

    reference: PyTree | None
    vae: PyTree
    judge: PyTree
    base: PyTree | None = None
