"""Stage `annotate`: best and worst candidate per dimension, or ∅, by the mini world's oracle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.evaluation.oracle import Oracle, Triplet, annotate
from onereward_jax.stages.candidates import STORE
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.stage import Results, StageContext

ORACLE = "oracle"
"""The annotator's name in the store."""


def run(context: StageContext) -> Results:
    """Writes a store with candidates and answers; returns how many pairs and ∅ there are.

    Labels of held-out triplets carry no noise: they measure the judge.

    Raises:
      ValueError: an annotator that this stage does not have.
    """
    config = context.config.annotate
    if config.by != ORACLE:
        raise ValueError(f"config.annotate.by is {config.by!r}: only 'oracle' is there")
    pictures = context.output("candidates")
    with PreferenceStore(pictures / STORE) as made:
        candidates_of = _by_triplet(made.candidates())
    splits = {split: open_triplets(context, split) for split in ("train", "test")}
    rows = {
        f"{split}/{name}": (split, row)
        for split, triplets in splits.items()
        for row, name in enumerate(triplets.column("id"))
    }
    oracle = Oracle.mini_world()
    with PreferenceStore(context.folder / STORE) as store:
        answered = {old.triplet_id for old in store.preferences()}
        with progress_bar(
            "annotate", len(candidates_of), initial=len(answered), unit="triplet"
        ) as bar:
            for name, candidates in candidates_of.items():
                if name in answered:
                    continue
                store.add_candidates(candidates)
                started = time.time()
                split, row = rows[name]
                triplet = Triplet.from_example(splits[split][row])
                scores = [
                    oracle.scores(np.asarray(Image.open(pictures / one.picture)), triplet)
                    for one in candidates
                ]
                rng = np.random.default_rng((context.config.seed, split == "test", row))
                noise_rate = config.noise_rate if split == "train" else 0.0
                answers = annotate(scores, rng, noise_rate, config.margin)
                finished = time.time()
                store.add_preferences(
                    Preference(
                        triplet_id=name,
                        task=triplet.task,
                        dimension=dimension,
                        winner=None if pair is None else candidates[pair[0]].index,
                        loser=None if pair is None else candidates[pair[1]].index,
                        annotator=ORACLE,
                        answered_at=finished,
                        seconds=(finished - started) / len(answers),
                    )
                    for dimension, pair in answers.items()
                )
                bar.update()
        preferences = store.preferences()
    pairs = sum(one.winner is not None for one in preferences)
    return {"pairs": pairs, "undecided": len(preferences) - pairs}


def _by_triplet(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Candidates, which are ordered by triplet, in groups."""
    groups = itertools.groupby(candidates, key=lambda one: one.triplet_id)
    return {name: list(group) for name, group in groups}
