"""Which triplets get candidates, and the settings of each candidate."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from ml_collections import FrozenConfigDict

from onereward_jax.annotation import Candidate
from onereward_jax.chain.rounds import rounds_of
from onereward_jax.common.rng import generator
from onereward_jax.data.pipeline import TripletSequence
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.candidate_editors import editors_of, picture_of
from onereward_jax.stages.candidate_settings import like_rl
from onereward_jax.stages.rl_settings import task_probabilities
from onereward_jax.tasks import TASKS, Task


@runtime_checkable
class CandidateTransform(Protocol):
    """Modifies finished candidates; made by a plug-in named in `config.candidates.transform`."""

    def draw(self, rng: np.random.Generator, split: str, name: str) -> float:
        """Strength of the change for the next candidate of a triplet; 0: none."""

    def apply(
        self,
        image: Float32[np.ndarray, "h w 3"],
        mask: Float32[np.ndarray, "h w 1"],
        strength: float,
        seed: int,
    ) -> Float32[np.ndarray, "h w 3"]:
        """The modified image, in [-1, 1]; mask: 1 = edited."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A candidate to generate: its triplet, and the settings drawn for it."""

    split: str
    row: int
    candidate: Candidate


def plan_candidates(
    config: FrozenConfigDict,
    split: str,
    triplets: Triplets,
    transform: CandidateTransform | None = None,
    round: int = 1,
) -> Iterator[Plan]:
    """The candidates of a split, with random settings as in the paper.

    With `candidates.test_like_rl` those of the test split differ in nothing but their noise, as the
    pictures of policy and reference in `rl`.

    Args:
      config: the full config. The settings of a candidate depend only on (seed, round, split, name
        of the triplet, index).
      split, triplets: name and triplets of the split.
      transform: transform of finished images; None: none.
      round: see `chain.rounds`.
    """
    seed, probabilities, counts = config.seed, task_probabilities(config), _counts(config, split)
    later = (f"round {round}",) if round > 1 else ()
    before = counts[: round - 1] if round > 1 and config.later_rounds.triplets == "other" else ()
    count, config, whole = counts[round - 1], config.candidates, config
    ids = triplets.column("id")
    groups = _folders(triplets.column("photo")) if config.chosen_by == "clusters" else None
    fixed = like_rl(whole) if split == "test" and config.test_like_rl else {}
    for row in choose_rows(
        triplets, ids, count, config.tasks, probabilities, seed, groups=groups, before=before
    ):
        for index, editor in enumerate(editors_of(whole, split, ids[row], round)):
            rng = generator(seed, "candidate", *later, split, ids[row], index)
            candidate = Candidate(
                triplet_id=f"{split}/{ids[row]}",
                index=index,
                picture=picture_of(split, ids[row], index, editor),
                num_inference_steps=int(rng.choice(config.num_steps)),
                guidance_scale=float(rng.uniform(*config.guidance_scale)),
                true_cfg_scale=float(rng.uniform(*config.true_cfg_scale)),
                negative_prompt=str(rng.choice(config.negative_prompts)),
                noise_strength=float(rng.uniform(*config.strength)),
                noise_seed=int(rng.integers(2**31)),
                disturbance=transform.draw(rng, split, ids[row]) if transform else 0.0,
            )
            if config.guided_by == "either":
                left_out = str(rng.choice(["guidance_scale", "true_cfg_scale"]))
                candidate = dataclasses.replace(candidate, **{left_out: config[left_out][0]})
            yield Plan(split, row, dataclasses.replace(candidate, **fixed))


def choose_rows(
    triplets: TripletSequence,
    names: Sequence[str],
    count: int,
    tasks: str,
    probabilities: Mapping[Task, float],
    seed: int,
    *,
    groups: Sequence[str] | None = None,
    before: Sequence[int] = (),
) -> list[int]:
    """Draws about `count` triplets, distributed over tasks.

    The share of tasks without triplets goes to the others; every other task gets at least one.
    Triplets are drawn by a hash of their names, so adding a triplet replaces at most one other.
    With `groups`, one triplet of each group is drawn before a second one of any. The paper takes
    pictures of each cluster of a K-means on CLIP embeddings: the stage `curate` has a folder for
    each.

    Args:
      triplets: the data set.
      names: names of the triplets.
      count: number of triplets to draw.
      tasks: "as_sampled": in proportion to p_k; "evenly": equally many per task.
      probabilities: p_k of the tasks; sum to 1.
      seed: seed of the draw.
      groups: group of each triplet; None: all are one group.
      before: `count` of earlier draws; their triplets are drawn again only after all others.

    Raises:
      ValueError: another value of `tasks`.
    """
    shares = {"as_sampled": probabilities, "evenly": dict.fromkeys(TASKS, 1 / len(TASKS))}
    if tasks not in shares:
        raise ValueError(f'candidates.tasks must be "as_sampled" or "evenly", found {tasks!r}')
    of_task = {task: triplets.with_task(task).tolist() for task in shares[tasks]}
    total = sum(share for task, share in shares[tasks].items() if of_task[task])
    rows = []
    for task, found in of_task.items():
        drawn = {row: generator(seed, "chosen", names[row]).random() for row in found}
        share = shares[tasks][task] / total if found else 0.0
        order = sorted(found, key=drawn.get)
        if groups is not None:
            order = _in_turns(order, groups)
        start = sum(max(round(one * share), 1) for one in before) % max(len(order), 1)
        rows += [*order[start:], *order[:start]][: max(round(count * share), 1)]
    return rows


def _counts(config: FrozenConfigDict, split: str) -> list[int]:
    """Number of triplets in each round."""
    first, later = config.candidates[split], config.get("later_rounds", {}).get(split)
    return [first, *[first if later is None else later] * (rounds_of(config) - 1)]


def _folders(photos: Sequence[str]) -> list[str]:
    """The folder of each photograph."""
    return [photo.rpartition("/")[0] for photo in photos]


def _in_turns(rows: Sequence[int], groups: Sequence[str]) -> list[int]:
    """The rows, with the first one of each group before the second one of any."""
    seen: Counter[str] = Counter()
    turns = {}
    for row in rows:
        turns[row] = seen[groups[row]]
        seen[groups[row]] += 1
    return sorted(rows, key=turns.get)  # stable
