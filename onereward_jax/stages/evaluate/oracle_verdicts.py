"""Good/Same/Bad by an oracle, for triplets with known ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onereward_jax.chain.plugins import maker
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gains_by_dimension import ByDimension
from onereward_jax.evaluation.gsb import Verdict, verdict_of
from onereward_jax.evaluation.oracle_interface import Oracle
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.stages.evaluate.compared_edits import Pictures

Scores = dict[int, tuple[ByDimension, ByDimension]]
"""Row -> scores of the policy's and of the base's result."""

Letters = dict[str, dict[int, float | None]]
"""Editor -> row -> fraction of the requested word's letters that are readable."""


def make_oracle(context: StageContext) -> Oracle | None:
    """The oracle named by `config.evaluate.oracle`; None if it names none.

    Raises:
      FileNotFoundError, ValueError: as `plugins.maker`, or the result is not an oracle.
    """
    make = maker(context.config, "evaluate.oracle")
    oracle = make(context.config) if make else None
    if oracle is not None and not isinstance(oracle, Oracle):
        raise ValueError(
            f"config.evaluate.oracle is {context.config.evaluate.oracle!r}: its make_oracle(config)"
            f" gives {type(oracle).__name__}, not an Oracle (evaluation/oracle_interface.py)"
        )
    return oracle


def pair_margin(oracle: Oracle) -> float:
    """The difference in one dimension from which on the oracle prefers a result."""
    return getattr(oracle, "pair_margin", oracle.same_margin)


def ask_oracle(
    oracle: Oracle, triplets: Triplets, rows: Sequence[int], base: Pictures, policy: Pictures
) -> tuple[Scores, Letters]:
    """Scores both editors' results for each triplet."""
    scores: Scores = {}
    letters: Letters = {"base": {}, "policy": {}}
    with progress_bar("oracle", len(rows), unit="triplet") as bar:
        for row in rows:
            example = triplets[row]
            scores[row] = tuple(oracle.scores(made[row], example) for made in (policy, base))
            for name, made in (("base", base), ("policy", policy)):
                letters[name][row] = oracle.letters_read(made[row], example)
            bar.update()
    return scores, letters


def oracle_verdicts(scores: Scores, margin: float) -> dict[int, Verdict]:
    """Verdicts by row, see `verdict`."""
    return {row: verdict(policy, base, margin) for row, (policy, base) in scores.items()}


def verdict(policy: ByDimension, base: ByDimension, margin: float) -> Verdict:
    """Good if the mean over dimensions of `policy` exceeds that of `base` by more than `margin`.

    Bad in the opposite case, Same otherwise. Antisymmetric.

    Raises:
      ValueError: the dimensions differ.
    """
    if policy.keys() != base.keys():
        raise ValueError(f"dimensions differ: {sorted(policy)} and {sorted(base)}")
    difference = float(np.mean([policy[dimension] - base[dimension] for dimension in policy]))
    return verdict_of(difference, margin)
