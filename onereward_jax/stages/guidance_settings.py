"""Guidance settings: `config.guidance`, and its overrides in the stages rl and evaluate.

A policy works best with the guidance it was trained with. So training and evaluation share one
setting, and the run announces it if they differ.
"""

from __future__ import annotations

import dataclasses

from ml_collections import FrozenConfigDict


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Guidance of one editor.

    Attributes:
      guidance_scale: embedded (distilled) guidance, an input of the network.
      true_cfg_scale: s of v = v_neg + s (v_pos - v_neg); 1: none.
      negative_prompt: prompt of v_neg.
    """

    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str


def evaluate_guidance(config: FrozenConfigDict) -> Guidance:
    """Guidance of both editors in the stage evaluate."""
    section = config.evaluate
    return Guidance(
        guidance_scale=_first(section.guidance_scale, config.guidance.guidance_scale),
        true_cfg_scale=_first(section.true_cfg_scale, config.guidance.true_cfg_scale),
        negative_prompt=_first(section.negative_prompt, config.guidance.negative_prompt),
    )


def rl_guidance(config: FrozenConfigDict) -> dict[str, Guidance]:
    """Guidance in the stage rl: of the policy's rollout ("policy"), its differentiable forward pass
    ("prediction"), and the "reference".
    """
    section = config.rl
    embedded = _first(section.guidance_scale, config.guidance.guidance_scale)
    negative = _first(section.negative_prompt, config.guidance.negative_prompt)
    scales = {
        "policy": section.policy_true_cfg_scale,
        "prediction": section.prediction_true_cfg_scale,
        "reference": section.reference_true_cfg_scale,
    }
    return {
        name: Guidance(embedded, _first(scale, config.guidance.true_cfg_scale), negative)
        for name, scale in scales.items()
    }


def guidance_apart(config: FrozenConfigDict) -> str:
    """A message if the guidance of rl and evaluate differ; "" if not."""
    if "rl" not in config or "evaluate" not in config:
        return ""
    used, trained = evaluate_guidance(config), rl_guidance(config)
    pairs = {
        "config.rl.guidance_scale": (trained["policy"].guidance_scale, used.guidance_scale),
        "config.rl.negative_prompt": (trained["policy"].negative_prompt, used.negative_prompt),
    } | {
        f"config.rl.{name}_true_cfg_scale": (guidance.true_cfg_scale, used.true_cfg_scale)
        for name, guidance in trained.items()
    }
    apart = [
        f"{name} {own!r} not {other!r}" for name, (own, other) in pairs.items() if own != other
    ]
    if not apart:
        return ""
    return f"rl: training uses another guidance than evaluate: {', '.join(apart)}"


def negative_prompts(config: FrozenConfigDict) -> tuple[str, ...]:
    """All negative prompts that stages of this config use."""
    found = []
    if "candidates" in config:
        found += config.candidates.negative_prompts
    if "rl" in config:
        found.append(rl_guidance(config)["policy"].negative_prompt)
    if "evaluate" in config:
        found.append(evaluate_guidance(config).negative_prompt)
    return tuple(dict.fromkeys(found))


def _first(override: float | str | None, common: float | str) -> float | str:
    return common if override is None else override
