"""ReFL on the difference of rewards (ImageReward, arXiv 2304.05977, Algorithm 1 and Eq. 2).

    L(θ) = mean over E_k of φ(r(x_θ) - r(x_ref)),   φ(d) = max(0, 2 - d)

φ and its margin of 2 are those of the authors' code. A judge's r(x_θ) - r(x_ref) is log P("Yes") -
log P("No"): of a scalar judge (`config.reward.kind` = "scalar") exactly, by Bradley-Terry's model;
of a pairwise judge it is the logit. Rollout, the one differentiable prediction at t in [t1, t2] and
the judge are those of Algorithm 1, which follows ReFL in this; x_ref only shifts the reward, so
that rewards of different sources are comparable. ReFL's pre-training loss is
`config.rl.flow_matching_weight`. λ is not used.
"""

from __future__ import annotations

import dataclasses

import jax
from jaxtyping import Array, Float32

from onereward_jax.training.algorithm import Algorithm
from onereward_jax.training.methods.reward_feedback import reward_feedback

MARGIN = 2.0
"""Difference of rewards from which on there is no gradient."""


@dataclasses.dataclass(frozen=True)
class RewardDifference(Algorithm):
    """Algorithm 1 with the loss of the module docstring."""

    def loss(
        self, log_yes: Float32[Array, "b e"], log_no: Float32[Array, "b e"], upper_bound: float
    ) -> Float32[Array, "b e"]:
        """max(0, 2 - d) for the difference d of the rewards; arguments as of `Algorithm.loss`."""
        return jax.nn.relu(MARGIN - (log_yes - log_no))


REFL = reward_feedback(RewardDifference("first"))
