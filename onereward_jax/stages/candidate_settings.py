"""Settings of held-out candidates that are made like the pictures that `rl` compares.

`candidates.test_like_rl`. Candidates that people rank differ in steps, guidance and noise strength,
and are easy to tell apart. Pictures of policy and reference have the same settings. The accuracy on
pairs of such candidates is what `rl` relies on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.stages.guidance_settings import rl_guidance


def like_rl(config: FrozenConfigDict) -> dict[str, Any]:
    """The settings of a candidate that is made like the policy's pictures in `rl`."""
    guidance = dataclasses.asdict(rl_guidance(config)["policy"])
    steps = config.rl.num_steps
    return guidance | {"num_inference_steps": steps, "noise_strength": 1.0, "disturbance": 0.0}


def most_steps(config: FrozenConfigDict) -> int:
    """The most sampling steps that a candidate can have."""
    section = config.candidates
    return max(*section.num_steps, config.rl.num_steps if section.test_like_rl else 0)
