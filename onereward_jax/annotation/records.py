"""Records of stage 1: candidates with their inference settings, and preferences."""

from __future__ import annotations

import dataclasses

from onereward_jax.tasks import DIMENSIONS, Dimension, Task


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One output of the base editor for a triplet, and its sampling settings.

    `picture` is the path of its PNG relative to the store's folder. `digest` is the digest of its
    pixels, `source_digest` that of the triplet's image and mask (see `picture_digests`); both are
    "" until the candidate is generated. `guidance_scale` is the embedded guidance,
    `true_cfg_scale` the scale of classifier-free guidance. `noise_strength` in [0, 1] is the noise
    strength of the initial latents, `noise_seed` their seed, and `disturbance` the standard
    deviation of the colour noise added to the finished image.
    """

    triplet_id: str
    index: int
    picture: str
    num_inference_steps: int
    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str
    noise_strength: float
    noise_seed: int
    disturbance: float = 0.0
    source_digest: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        if self.index < 0 or self.num_inference_steps < 1:
            raise ValueError(
                f"candidate {self.triplet_id}/{self.index}: index must be >= 0 and "
                f"num_inference_steps >= 1, found {self.num_inference_steps}"
            )


@dataclasses.dataclass(frozen=True)
class Preference:
    """One annotator's answer for one triplet in one dimension.

    `winner` and `loser` are candidate indices; both None means ∅, "they do not differ".
    `answered_at` is Unix time in seconds, `seconds` the time spent on the answer.
    """

    triplet_id: str
    task: Task
    dimension: Dimension
    winner: int | None
    loser: int | None
    annotator: str
    answered_at: float
    seconds: float

    def __post_init__(self) -> None:
        where = f"preference of {self.annotator!r} for {self.triplet_id}"
        if self.dimension not in DIMENSIONS[self.task]:
            raise ValueError(f"{where}: {self.task.title} is not judged in {self.dimension.title}")
        if (self.winner is None) != (self.loser is None):
            raise ValueError(f"{where}: winner and loser must both be given or both be None (∅)")
        if self.winner is not None and self.winner == self.loser:
            raise ValueError(f"{where}: candidate {self.winner} cannot win against itself")
