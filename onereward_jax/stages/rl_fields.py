"""Fields of the config section `rl` whose change has another effect than that of their section."""

from __future__ import annotations

from onereward_jax.chain.staleness import Effect, Fields, comes_to, how
from onereward_jax.stages.guidance_settings import rl_guidance

REFERENCE_GUIDANCE = (
    comes_to("rl.guidance_scale", lambda c: rl_guidance(c)["reference"].guidance_scale),
    comes_to("rl.negative_prompt", lambda c: rl_guidance(c)["reference"].negative_prompt),
    comes_to("rl.reference_true_cfg_scale", lambda c: rl_guidance(c)["reference"].true_cfg_scale),
)
"""Of the reference; the embedded guidance and the negative prompt are also the policy's."""

RL_GUIDANCE = (
    *REFERENCE_GUIDANCE,
    comes_to("rl.policy_true_cfg_scale", lambda c: rl_guidance(c)["policy"].true_cfg_scale),
    comes_to("rl.prediction_true_cfg_scale", lambda c: rl_guidance(c)["prediction"].true_cfg_scale),
)

_GROUPS = ("group_size", "compare", "opponents", "trained_levels", "advantage_limit")
_GRPO = ("grpo_noise", "clip_range", "inner_updates")


def _only_with(field: str, values: tuple[str, ...], *names: str) -> Fields:
    """Fields that are read only with these values of another one."""
    return Fields(Effect.HOW, tuple(f"rl.{name}" for name in names), unless={field: values})


ONLY_SOMETIMES = (
    _only_with("rl.references", ("bank",), "bank_size"),
    _only_with("rl.surrogate", ("several", "sparse"), "active_steps"),
    _only_with("rl.surrogate", ("leap",), "leap_discount"),
    _only_with("rl.balance", ("worst",), "balance_temperature"),
    _only_with("rl.balance", ("floors",), "floor", "floor_gain"),
    _only_with("rl.balance", ("floors", "spread"), "balance_window"),
    how("rl.ensemble", "rl.ensemble_spread", when={"reward.judges": (1,)}),
    how("rl.held_out_every", "rl.stop_at_gap", when={"reward.held_out": (0,)}),
    _only_with("rl.algorithm", ("nft", "grpo"), *_GROUPS),
    _only_with("rl.algorithm", ("nft",), "nft_beta"),
    _only_with("rl.algorithm", ("grpo",), *_GRPO),
    _only_with("rl.algorithm", ("nft", "grpo", "winners", "dpo"), "error_area"),
    _only_with("rl.algorithm", ("dpo",), "dpo_beta"),
)
"""Fields of `rl` that have no effect with other settings."""
