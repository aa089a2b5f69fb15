"""Inputs of the RL step: settings, models, and frozen weights.

Symbols of Section 3 of the paper (arXiv 2508.21066): λ `reward_upper_bound`, τ `ema_decay`,
[t1, t2] `t1` and `t2`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

from jaxtyping import PyTree

from onereward_jax.models.int8 import Quantized
from onereward_jax.models.lora import LoraConfig
from onereward_jax.policy import FillPolicy
from onereward_jax.reward import Jitter, PairScorer
from onereward_jax.tasks import DIMENSIONS, Dimension
from onereward_jax.training.algorithm import FROZEN, Algorithm
from onereward_jax.training.online_config import OnlineConfig
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.rl_balance import Balance

Surrogate = Literal["single", "endpoint", "several", "sparse", "leap"]
"""See `rl_surrogate`."""

SharedNoise = Literal["none", "outside", "all"]
References = Literal["rollout", "bank"]
ErrorArea = Literal["mask", "whole"]


@dataclasses.dataclass(frozen=True)
class RLConfig:
    """Settings of multi-task reward feedback learning.

    Attributes:
      algorithm: source of x_ref and loss of a pair: `algorithm.FROZEN`, `DYNAMIC`, or a custom
        one.
      reward_upper_bound: λ of Eq. 5; a pair with P("Yes") above it has zero gradient.
      dimension_weights: weights of the mean over E_k in Eq. 5, in the order of `tasks.Dimension`;
        only their ratios within a task matter.
      balance: how the dimensions of a sample share its update.
      ema_decay: τ.
      num_steps: steps of the sampling grid, for policy and reference.
      t1, t2: the policy takes t steps without gradient, t uniform in [t1, t2] (both included), and
        predicts x'_0 from noise level sigmas[t].
      surrogate: what of the trajectory gets the judge's gradient, see `rl_surrogate`.
      active_steps: K of the surrogates "several" and "sparse", at most t2 - t1 + 1.
      leap_discount: α of "leap", the factor of the gradient through the network's input.
      shared_noise: "all": ε2 = ε1; "outside": only of tokens that the mask does not touch.
      gradient_in_mask: no gradient through pixels outside the mask.
      anchor_weight: weight of the anchor, see `rl_anchor`; 0 disables it.
      guidance_scale: embedded guidance, for all forward passes.
      reference_true_cfg_scale: true CFG scale of the reference rollout; 1.0 disables CFG.
      policy_true_cfg_scale: true CFG scale of the policy rollout.
      prediction_true_cfg_scale: true CFG scale of the one differentiable forward pass. If not 1.0,
        the negative branch is differentiated too, which doubles the memory.
      flow_matching_weight: weight of the flow-matching loss on `batch["target"]`, averaged over the
        samples that have a target; 0 disables it.
      error_area: latent tokens over which methods with a loss on latents average their error: those
        with an edited pixel ("mask"), or all ("whole").
      dpo_beta: β of Diffusion-DPO; higher keeps the policy closer to the reference.
      jitter: augmentation of x_θ and x_ref before the judge.
      held_out_every: ask the held-out judge in one of so many steps; 0: there is none.
      stop_at_gap: stop updating once the smoothed gap between the judge's reward and the held-out
        judge's is above this, see `held_out_judge`; 0: never.
      microbatches: number of microbatches for gradient accumulation.
      optimizer: see `OptimizerConfig`.
      references: x_ref of the step. "rollout": sampled in the step, as in Algorithm 1. "bank":
        `batch["reference"]`, a picture that π_ref made before, see `stages.reference_bank`.
      rollout_int8: passes without gradient in int8, see `rollout_int8`.
      lora: train this adapter instead of the whole transformer. The reference of Algorithm 1 is
        then the base alone, that of Algorithm 2 the base with the average of the adapter.
      online: settings of the methods "nft" and "grpo"; nothing else reads them.

    Raises:
      ValueError: a field is out of range; names it.
    """

    algorithm: Algorithm = FROZEN
    reward_upper_bound: float = 0.9
    dimension_weights: tuple[float, ...] = (1.0,) * len(Dimension)
    balance: Balance = Balance()
    ema_decay: float = 0.999
    num_steps: int = 40
    t1: int = 30
    t2: int = 39
    surrogate: Surrogate = "single"
    active_steps: int = 3
    leap_discount: float = 0.3
    shared_noise: SharedNoise = "none"
    gradient_in_mask: bool = False
    anchor_weight: float = 0.0
    guidance_scale: float = 1.0
    reference_true_cfg_scale: float = 4.0
    policy_true_cfg_scale: float = 4.0
    prediction_true_cfg_scale: float = 4.0
    flow_matching_weight: float = 0.0
    error_area: ErrorArea = "mask"
    dpo_beta: float = 2000.0
    jitter: Jitter = Jitter()
    held_out_every: int = 0
    stop_at_gap: float = 0.0
    microbatches: int = 1
    optimizer: OptimizerConfig = OptimizerConfig()
    references: References = "rollout"
    rollout_int8: bool = False
    lora: LoraConfig | None = None
    online: OnlineConfig = OnlineConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.t1 <= self.t2 < self.num_steps:
            raise ValueError(
                f"t1 is {self.t1} and t2 is {self.t2}: expected indices of the sampling grid, "
                f"0 <= t1 <= t2 < num_steps, {self.num_steps}"
            )
        self._check_surrogate()
        weights = dict(zip(Dimension, self.dimension_weights, strict=True))
        for dimension, weight in weights.items():
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"dimension_weights.{dimension} is {weight}: expected at least 0")
        for task, dimensions in DIMENSIONS.items():
            if not any(weights[dimension] for dimension in dimensions):
                raise ValueError(
                    f"dimension_weights are 0 for all dimensions of {task.title}: to exclude the "
                    f"task from training, set task_probabilities.{task.value} to 0"
                )
        if not 0.0 <= self.ema_decay <= 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}: expected in [0, 1]")
        if self.flow_matching_weight < 0.0:
            raise ValueError(
                f"flow_matching_weight is {self.flow_matching_weight}: expected at least 0"
            )
        if self.stop_at_gap and not self.held_out_every:
            raise ValueError(
                f"stop_at_gap is {self.stop_at_gap}, but no held-out judge measures the gap: "
                'expected reward.held_out and rl.held_out_every above 0, rl.reward "judge", and '
                'a method that asks it (with rl.compare "reference")'
            )
        if not 0.0 < self.dpo_beta < math.inf:
            raise ValueError(f"dpo_beta is {self.dpo_beta}: expected above 0")
        if self.microbatches < 1:
            raise ValueError(f"microbatches is {self.microbatches}: expected at least 1")
        if self.references == "bank" and self.algorithm.reference == "average":
            raise ValueError(
                'references is "bank", but the reference of this algorithm is the moving average, '
                'which changes with every step: "rollout" expected'
            )

    def _check_surrogate(self) -> None:
        wanted = {"leap": 2, "several": self.active_steps, "sparse": self.active_steps}
        count, window = wanted.get(self.surrogate, 1), self.t2 - self.t1 + 1
        if not 1 <= count <= window:
            raise ValueError(
                f"surrogate is {self.surrogate!r} with {count} active steps, but t1 {self.t1} to "
                f"t2 {self.t2} are {window}"
            )
        if not 0.0 <= self.leap_discount <= 1.0:
            raise ValueError(f"leap_discount is {self.leap_discount}: expected in [0, 1]")
        if not 0.0 <= self.anchor_weight < math.inf:
            raise ValueError(f"anchor_weight is {self.anchor_weight}: expected at least 0")
        if self.anchor_weight and self.algorithm.reference == "average" and self.lora is None:
            raise ValueError(
                f"anchor_weight is {self.anchor_weight}, but the initial weights are not in memory "
                "where the reference is the average: set it to 0, train an adapter (lora.rank), or "
                'use the algorithm "frozen"'
            )


@dataclasses.dataclass(frozen=True)
class RLModels:
    """The static parts of all models in the step; weights are passed separately.

    Attributes:
      editor: policy and reference.
      scorer: the reward, see `reward.reward_interface`; None if the method asks none.
      asks: whether the reward gets questions; otherwise it gets the batch.
      held_out: the held-out judge; None without one.
    """

    editor: FillPolicy
    scorer: PairScorer | None
    asks: bool = True
    held_out: PairScorer | None = None


class Frozen(NamedTuple):
    """Weights without gradient. They are arguments of the jitted step, not constants.

    Attributes:
      reference: the transformer of π_ref if that is the initial policy; None if it is the average,
        with LoRA, or if nothing needs it in full precision (`rl_weights.keeps_reference`).
      vae: weights of the autoencoder.
      judge: weights of the reward model φ, or of another reward; None if the method asks none.
      base: the base transformer with LoRA; None without.
      held_out: weights of the held-out judge; None without one.
      int8: the initial transformer in int8, if the rollouts need it (`rollout_int8.keeps_int8`).
    """

    reference: PyTree | None
    vae: PyTree
    judge: PyTree
    base: PyTree | None = None
    held_out: PyTree | None = None
    int8: Quantized | None = None
