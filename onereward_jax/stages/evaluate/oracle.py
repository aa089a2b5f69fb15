"""What only the mini world's oracle can say. Needs the extra `mini`, so it is imported late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gains import ByDimension
from onereward_jax.evaluation.gsb import Verdict
from onereward_jax.mini.oracle import Oracle, Triplet, WordReader, verdict
from onereward_jax.mini.oracle.reading import letters_read
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.progress import progress_bar


def oracle_scores(
    triplets: Triplets, rows: Sequence[int], base: Pictures, policy: Pictures
) -> dict[int, tuple[ByDimension, ByDimension]]:
    """The oracle's scores of the policy's and of the base's result for each triplet."""
    oracle, scores = Oracle.mini_world(), {}
    with progress_bar("oracle", len(rows), unit="triplet") as bar:
        for row in rows:
            truth = Triplet.from_example(triplets[row])
            scores[row] = tuple(oracle.scores(pictures[row], truth) for pictures in (policy, base))
            bar.update()
    return scores


def oracle_verdicts(
    scores: Mapping[int, tuple[ByDimension, ByDimension]], margin: float
) -> dict[int, Verdict]:
    """Good where the policy's mean score is higher than the base's by more than `margin`."""
    return {row: verdict(policy, base, margin) for row, (policy, base) in scores.items()}


def word_accuracies(
    triplets: Triplets, rows: Sequence[int], pictures: Pictures
) -> dict[int, float | None]:
    """Share of letters that OCR reads in an editor's pictures; None where no word was asked for."""
    reader = WordReader()
    return {
        row: letters_read(pictures[row], Triplet.from_example(triplets[row]), reader)
        for row in rows
    }
