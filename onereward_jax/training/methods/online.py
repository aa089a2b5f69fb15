"""DiffusionNFT and Flow-GRPO as `Method`s, and what a step of them costs."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float, Int

from onereward_jax.training.algorithm import FROZEN, Algorithm
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.methods.diffusion_nft import make_nft_step
from onereward_jax.training.methods.diffusion_nft_loss import old_policy_decay
from onereward_jax.training.methods.flow_grpo import make_grpo_step
from onereward_jax.training.methods.method import Method
from onereward_jax.training.model_flops import held_out_flops, pass_flops
from onereward_jax.training.rl_config import RLConfig, RLModels


class OldPolicy(Algorithm):
    """DiffusionNFT's: the average is the old policy, which follows ever more slowly."""

    def decay(self, decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
        """η_i, see `old_policy_decay`; `decay` is its maximum."""
        return old_policy_decay(decay, step)


def _branches(scale: float) -> int:
    return 1 if scale == 1.0 else 2


def _trained(config: RLConfig) -> int:
    """Forward passes that a forward and a backward pass cost; with LoRA, the base learns not."""
    return 2 if config.lora else 3


def _nft_loss_passes(config: RLConfig) -> int:
    """Forward passes per trained level: new and old policy, and the initial one as an anchor."""
    passes = _trained(config) + 1 + bool(config.anchor_weight)
    return passes * _branches(config.prediction_true_cfg_scale)


def _grpo_loss_passes(config: RLConfig) -> int:
    """Forward passes per trained step: only the positive branch of the new policy learns."""
    branches = _branches(config.policy_true_cfg_scale)
    return _trained(config) + branches - 1 + bool(config.anchor_weight) * branches


def _group_passes(config: RLConfig, per_level: int) -> float:
    """Forward passes of the transformer per triplet."""
    online = config.online
    passes = config.num_steps * _branches(config.policy_true_cfg_scale)
    passes = online.group_size * (passes + online.trained_levels * per_level)
    if online.compare == "reference" and config.references == "rollout":
        passes += config.num_steps * _branches(config.reference_true_cfg_scale)
    return float(passes + _matching_passes(config))


def _matching_passes(config: RLConfig) -> int:
    return _trained(config) if config.flow_matching_weight else 0


def _group_flops(
    models: RLModels,
    config: RLConfig,
    params: Any,
    batch: Any,
    assumptions: Assumptions,
    passes: float,
) -> float:
    one = pass_flops(models, params, batch, assumptions)
    samples = config.online.group_size
    decoded = config.online.compare == "reference" and config.references == "rollout"
    pictures = samples + decoded
    asked = samples * (1 if config.online.compare == "reference" else config.online.opponents)
    encodes = 3 if config.flow_matching_weight else 1
    judged = asked * (one.score + held_out_flops(models, config, params, batch, assumptions))
    return passes * one.velocity + encodes * one.encode + pictures * one.decode + judged


def nft_passes(config: RLConfig) -> float:
    """Forward passes of the transformer per triplet of DiffusionNFT."""
    return _group_passes(config, _nft_loss_passes(config))


def grpo_passes(config: RLConfig) -> float:
    """Forward passes of the transformer per triplet of Flow-GRPO."""
    updates = config.online.inner_updates
    again = (updates - 1) * _matching_passes(config)
    return _group_passes(config, _grpo_loss_passes(config)) + again


DIFFUSION_NFT = Method(
    OldPolicy("first"),
    make_nft_step,
    lambda models, config, *rest: _group_flops(models, config, *rest, nft_passes(config)),
    nft_passes,
    asks_held_out=True,
    anchors=True,
    reads_bank=True,
)

FLOW_GRPO = Method(
    FROZEN,
    make_grpo_step,
    lambda models, config, *rest: _group_flops(models, config, *rest, grpo_passes(config)),
    grpo_passes,
    asks_held_out=True,
    anchors=True,
    reads_bank=True,
)
