"""The labelled pairs of a run: those of its own answers, and of `config.reward.preferences`."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.labelled_pairs import (
    LabelledPair,
    PairRules,
    compared_pairs,
    read_pairs,
    write_pairs,
)
from onereward_jax.chain.rounds import in_round
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.imported_folders import imported_folders
from onereward_jax.stages.imported_pairs import crop_notes, imported_pairs
from onereward_jax.stages.judge_parts import divides
from onereward_jax.stages.own_candidates import OWN, rounds_so_far
from onereward_jax.stages.photographs import with_photographs
from onereward_jax.stages.preference_stores import read_store
from onereward_jax.stages.settings import from_section

PAIRS = "pairs.jsonl"

SPLITS = ("train", "test")


def collect_pairs(context: StageContext) -> dict[str, list[LabelledPair]]:
    """Writes `PAIRS` on process 0, shares it, and returns the pairs by split.

    Raises:
      ValueError: a split has no decided pair.
    """
    if is_writer():
        pairs = all_pairs(context)
        if divides(context.config):
            pairs = with_photographs(context, pairs)
        write_pairs(context.folder / PAIRS, pairs)
    context.share(PAIRS)
    found = pairs_by_split(context.folder / PAIRS)
    for split, pairs in found.items():
        if not any(pair.decided for pair in pairs):
            where = "config.reward.preferences"
            if has_own_pairs(context.config):
                where = str(context.folders.place(context.output("annotate")))
            raise ValueError(f"{where}: no decided pair of {split}")
    return found


def has_own_pairs(config: FrozenConfigDict) -> bool:
    """Whether the run has answers of its own; else all pairs are from `reward.preferences`."""
    return "annotate" in config.stages


def all_pairs(context: StageContext) -> Iterator[LabelledPair]:
    """The pairs of the run's own answers, and those of the preferences folders; on process 0."""
    config, own = context.config, {}
    if has_own_pairs(config):
        for number in rounds_so_far(context):
            yield from own_pairs(context, number)
            with read_store(context, "annotate", number) as store:
                own |= {one.digest: one.triplet_id.partition("/")[0] for one in store.candidates()}
    for line in crop_notes(config):
        announce(line)
    yield from imported_pairs(config, {split: pair_rules(config, split) for split in SPLITS}, own)


def pairs_by_split(path: Path) -> dict[str, list[LabelledPair]]:
    """The pairs of a file; raises as `read_pairs`."""
    found: dict[str, list[LabelledPair]] = {split: [] for split in SPLITS}
    for pair in read_pairs(path):
        found[pair.split].append(pair)
    return found


def picture_folders(context: StageContext) -> Mapping[str, Path]:
    """Where the folders that pairs name are on this host."""
    own = {in_round(OWN, number): context.output(OWN, number) for number in rounds_so_far(context)}
    return own | imported_folders(context.config)


def pair_rules(config: FrozenConfigDict, split: str) -> PairRules:
    """The rules of `config.reward` for a split; held-out pairs are those of best and worst."""
    between = config.reward.between and split == "train"
    return from_section(
        PairRules, config.reward, "config.reward", between=between, seed=config.seed
    )


def own_pairs(context: StageContext, number: int = 1) -> Iterator[LabelledPair]:
    """Pairs of the answers in the store of `annotate` in a round, with pictures of `candidates`."""
    with read_store(context, "annotate", number) as store:
        preferences = store.preferences()
        pictures = {(one.triplet_id, one.index): one.picture for one in store.candidates()}
    candidates = collections.defaultdict(list)
    for triplet, index in pictures:
        candidates[triplet].append(index)
    for split in SPLITS:
        triplets: Triplets = open_triplets(context, split)
        prompts, sizes = triplets.column("prompt"), triplets.sizes.tolist()
        rows = {f"{split}/{name}": row for row, name in enumerate(triplets.column("id"))}
        of_split = [one for one in preferences if one.triplet_id in rows]
        for found in compared_pairs(of_split, candidates, pair_rules(context.config, split)):
            row = rows[found.triplet_id]
            yield LabelledPair(
                split=split,
                source=found.triplet_id.removeprefix(f"{split}/"),
                task=found.task,
                dimension=found.dimension,
                prompt=prompts[row],
                folder=in_round(OWN, number),
                first=pictures[found.triplet_id, found.first],
                second=pictures[found.triplet_id, found.second],
                size=tuple(sizes[row]),
                label=found.label,
                votes=found.votes,
                share=found.share,
            )
