"""Settings of the online methods without a gradient through the judge: "nft" and "grpo"."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from jax.sharding import Mesh

from onereward_jax.parallel import check_microbatches

ONLINE = ("nft", "grpo")
"""Values of `config.rl.algorithm` that sample groups."""

Compare = Literal["reference", "group"]


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """Fields of `config.rl` that only "nft" and "grpo" read.

    Attributes:
      group_size: samples per triplet and step.
      compare: what the judge compares a sample with. "reference": one sample of the reference for
        the whole group. "group": the next `opponents` samples of its group, in a ring.
      opponents: of each sample if it is compared within its group, at most `group_size` - 1.
      trained_levels: noise levels of each sample that are trained on, at most `num_steps` ("nft"),
        or steps of its path, at most `num_steps` - 1 ("grpo", whose last step is not random).
      advantage_limit: advantages are clipped to [-it, it]; for "nft", one of this size makes a
        sample certainly good or bad.
      nft_beta: β of DiffusionNFT; the smaller, the further from the old policy.
      grpo_noise: a of Flow-GRPO, the noise of the sampling steps.
      clip_range: of Flow-GRPO; a ratio of probabilities that has left [1 - it, 1 + it] in the
        wanted direction gets no gradient.
      inner_updates: updates per rollout of Flow-GRPO, each on its share of the samples.

    Raises:
      ValueError: a field is out of range; names it.
    """

    group_size: int = 4
    compare: Compare = "reference"
    opponents: int = 1
    trained_levels: int = 4
    advantage_limit: float = 5.0
    nft_beta: float = 1.0
    grpo_noise: float = 0.7
    clip_range: float = 1e-4
    inner_updates: int = 1

    def __post_init__(self) -> None:
        if self.compare not in get_args(Compare):
            raise ValueError(
                f"compare is {self.compare!r}: choose one of {', '.join(get_args(Compare))}"
            )
        least = {"group_size": 2, "trained_levels": 1, "inner_updates": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least {bound}")
        if not 1 <= self.opponents < self.group_size:
            raise ValueError(
                f"opponents is {self.opponents}: expected from 1 to group_size - 1, "
                f"{self.group_size - 1}"
            )
        for name in ("advantage_limit", "nft_beta", "grpo_noise", "clip_range"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}: a positive number expected")


def check_groups(triplets: int, group_size: int, microbatches: int, mesh: Mesh) -> None:
    """Checks that every device gets whole groups, and samples of every microbatch.

    Args:
      triplets: global batch size.
      group_size: samples per triplet.
      microbatches: parts of the samples of all groups.
      mesh: the mesh.

    Raises:
      ValueError: the triplets or their samples cannot be split so.
    """
    check_microbatches(triplets, 1, mesh)
    try:
        check_microbatches(triplets * group_size, microbatches, mesh)
    except ValueError as error:
        raise ValueError(f"{triplets} triplets x group_size {group_size}: {error}") from error
