"""What stage 1 leaves behind: candidates with their inference settings, and preferences."""

from __future__ import annotations

import dataclasses

from onereward_jax.tasks import DIMENSIONS, Dimension, Task


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One result of the base editor for a triplet, and the settings it was drawn with.

    `picture` is the path of its PNG relative to the store's folder, `digest` that of its pixels
    and `source_digest` that of the triplet's picture and mask (see `binding`); both are "" only
    while the candidate is not yet made. `guidance_scale` is the embedded one, `true_cfg_scale` that
    of classifier-free guidance. `noise_strength` in [0, 1] is the share of noise in the initial
    latents, `noise_seed` what they were drawn from, and `disturbance` the strength of the colour
    noise that the finished picture was given.
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

    `winner` and `loser` are candidate indices; both None stands for ∅, "they do not differ".
    `answered_at` is Unix time in seconds, `seconds` how long the answer took.
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
