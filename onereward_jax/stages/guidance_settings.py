"""How the editor is guided: `config.guidance`, and what the stages rl and evaluate say instead.

A policy that learns with one guidance looks its best with that one. So there is one setting for
training and use, and whoever takes them apart is told.
"""

from __future__ import annotations

import dataclasses

from ml_collections import FrozenConfigDict


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Of one editor.

    Attributes:
      guidance_scale: the guidance that the network reads.
      true_cfg_scale: s of v = v_neg + s (v_pos - v_neg); 1 for none.
      negative_prompt: of v_neg.
    """

    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str


def evaluate_guidance(config: FrozenConfigDict) -> Guidance:
    """Of both editors in the stage evaluate."""
    section = config.evaluate
    return Guidance(
        guidance_scale=_first(section.guidance_scale, config.guidance.guidance_scale),
        true_cfg_scale=_first(section.true_cfg_scale, config.guidance.true_cfg_scale),
        negative_prompt=_first(section.negative_prompt, config.guidance.negative_prompt),
    )


def rl_guidance(config: FrozenConfigDict) -> dict[str, Guidance]:
    """In the stage rl: of the policy's rollout, of its differentiable "prediction", and of the
    "reference".
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
    """One line on how the guidance of rl and of evaluate differ; "" where they are the same."""
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
    return f"rl: the policy learns with another guidance than evaluate uses: {', '.join(apart)}"


def negative_prompts(config: FrozenConfigDict) -> tuple[str, ...]:
    """Every negative prompt that a stage of this config asks for."""
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
