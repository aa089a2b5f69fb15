"""What a method of training the policy is to the rest of the package: `Method`.

`config.rl.algorithm` names one of `methods.METHODS`, or a plug-in. Data, checkpoints, resume,
adapters, meshes, samples, throughput and `train_compile` are the same for all methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from jax.sharding import Mesh

from onereward_jax.parallel import MeshFunction
from onereward_jax.training.algorithm import Algorithm
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.rl_config import RLConfig, RLModels

Batches = Literal["triplets", "pairs"]


def rollout_trips(config: RLConfig) -> float:
    """Mean number of steps of the policy's rollout to t, uniform in [t1, t2]."""
    return (config.t1 + config.t2) / 2


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train the policy.

    Attributes:
      algorithm: the weights of the reference, the decay of the average and, for methods that use
        it, the loss of a comparison. It becomes `RLConfig.algorithm`; with reference "first", the
        step gets `Frozen.reference` (with LoRA, `Frozen.base` is the reference).
      make_step: (models, config, mesh) -> the jitted step (state, frozen, batch, key) -> (state,
        metrics), for images of one size. The state is that of `rl_step.abstract_rl_state`; `key` is
        the key of the run, the same at every step. `methods.policy_step` makes most of it.
      model_flops: model FLOPs of a step, arguments as of `model_flops.rl_model_flops`. `params` and
        `batch` are what the step gets; a judge that is not asked is None.
      passes: config -> forward passes of the transformer per step; a backward pass counts as one or
        two more. Only ranks the layouts of `train_compile --suggest`.
      batches: what a batch holds. "triplets": see `rl_rollout.Batch`. "pairs": the same fields of
        the triplet of each pair, and those of `pair_batch.PairBatch`.
      asks: whether the step asks the reward. If not, there is no judge, no `Frozen.judge` and no
        query in the batch, and `RLModels.scorer` is None.
      reads_bank: whether the step can take x_ref from a bank (`RLConfig.references`).
      asks_held_out: whether the step asks a held-out judge, see `held_out_judge`.
      anchors: whether the step adds the anchor of `RLConfig.anchor_weight`.
      loop_trips: config -> mean trip count of a loop whose bounds are traced, for `model_flops`.

    Raises:
      ValueError: there is no such kind of batch.
    """

    algorithm: Algorithm
    make_step: Callable[[RLModels, RLConfig, Mesh], MeshFunction]
    model_flops: Callable[[RLModels, RLConfig, Any, Any, Assumptions], float]
    passes: Callable[[RLConfig], float]
    batches: Batches = "triplets"
    asks: bool = True
    reads_bank: bool = False
    asks_held_out: bool = False
    anchors: bool = False
    loop_trips: Callable[[RLConfig], float] = rollout_trips

    def __post_init__(self) -> None:
        if self.batches not in get_args(Batches):
            known = " or ".join(map(repr, get_args(Batches)))
            raise ValueError(f"batches is {self.batches!r}: expected {known}")
