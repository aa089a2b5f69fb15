"""Stage `label_curve`: the judge's accuracy by the number of labelled pairs (not in the paper).

curve.json       held-out accuracy of judges trained on parts of the pairs, smallest part first
share-<share>/   logs and accuracy of one of them

Each judge is trained like that of the stage `reward`, with as many steps, on the pairs of a share
of the source pictures; a smaller share is part of every larger one. The last point is the judge of
`reward`, which has them all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import generator
from onereward_jax.evaluation.judge_calibration import LabelPoint
from onereward_jax.parallel import is_writer
from onereward_jax.stages.collect_pairs import PAIRS, pairs_by_split
from onereward_jax.stages.judge_parts import judge_parts
from onereward_jax.stages.train_judge import ACCURACY, read_judges, train_judge

CURVE = "curve.json"


def run(context: StageContext) -> Results:
    """Trains a judge per share; returns their accuracies.

    Raises:
      ValueError: a share of the source pictures has no decided pair.
    """
    labelled = pairs_by_split(context.output("reward") / PAIRS)
    first = judge_parts(context.config, labelled["train"])[0]
    train, points = first.train, []
    for share in sorted(context.config.reward.curve_shares):
        part = part_of(train, share, context.config.seed)
        if not any(pair.decided for pair in part):
            raise ValueError(
                f"config.reward.curve_shares: {share} of the source pictures have no decided pair"
            )
        folder = context.folder / f"share-{share:g}"
        given = {"train": part, "validation": first.validation, "test": labelled["test"]}
        judges, pairs = read_judges(context, given)
        train_judge(context, judges, pairs, name=f"label_curve, share {share:g}", folder=folder)
        if is_writer():
            points.append(point_of(folder / ACCURACY, part, labelled["test"]))
    if not is_writer():
        return {}
    points.append(point_of(context.output("reward") / ACCURACY, train, labelled["test"]))
    found = {"points": [dataclasses.asdict(point) for point in points]}
    with atomic_file(context.folder / CURVE) as draft:
        draft.write_text(json.dumps(found, indent=1))
    return {
        f"accuracy_of_{point.labels}_pairs": f"{100 * point.accuracy:.1f} %" for point in points
    }


def part_of(pairs: Sequence[LabelledPair], share: float, seed: int) -> list[LabelledPair]:
    """The pairs of a share of the source pictures; a smaller share is part of a larger one."""
    sources = sorted({pair.source for pair in pairs})
    order = generator(seed, "label_curve").permutation(len(sources))
    kept = {sources[place] for place in order[: max(1, round(share * len(sources)))]}
    return [pair for pair in pairs if pair.source in kept]


def point_of(
    accuracy: Path, train: Sequence[LabelledPair], test: Sequence[LabelledPair]
) -> LabelPoint:
    """A point of the curve: what `accuracy` says of a judge trained on the pairs `train`."""
    rows: list[dict[str, Any]] = json.loads(accuracy.read_text())["rows"]
    held_out = sum(row["pairs"] for row in rows)
    return LabelPoint(
        pairs=held_out,
        accuracy=sum(row["pairs"] * row["accuracy"] for row in rows) / held_out,
        labels=len(train),
        sources=len({pair.source for pair in train}),
        test_sources=len({pair.source for pair in test if pair.decided}),
    )
