"""Measures the judge on held-out pairs: accuracy per task and dimension, and its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from onereward_jax.annotation.labelled_pairs import UNDECIDED_LABEL, LabelledPair
from onereward_jax.chain.stage import Results
from onereward_jax.data.pipeline import same_size_parts
from onereward_jax.evaluation.intervals import counted
from onereward_jax.evaluation.judge_accuracy import judge_accuracy_table
from onereward_jax.evaluation.judge_calibration import (
    accuracy_by_agreement,
    calibration,
    symmetrized,
)
from onereward_jax.evaluation.policy_against_base import RightOnPolicy, overall, right_on_policy
from onereward_jax.parallel import gather, replicate
from onereward_jax.stages.candidate_editors import POLICY, editor_of
from onereward_jax.stages.pair_source import PairSource
from onereward_jax.tasks import OWN, Dimension, Task
from onereward_jax.training.preference_loss import PairAnswers, preference_loss


def measure_judge(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> dict[str, Any]:
    """The contents of accuracy.json, but for the step; all processes call it.

    Args:
      ask: the judge's answers to a batch with the fields of `pairs`.
      pairs: held-out pairs; those with label 0.5 have no right answer and count for the
        calibration only.
      batch_size: pairs per batch.
      mesh: the mesh.

    Returns:
      rows: one per task and dimension, with the fields of `JudgeAccuracy`. calibration: a
      `Calibration` over all pairs. by_agreement: `AgreedShare`s, if pairs have several annotators.
      on_policy: `RightOnPolicy`s on pairs of policy and base, per round, task and dimension.
    """
    first, second = _probabilities(ask, pairs, batch_size, mesh).T
    label, share, votes = (
        np.array([getattr(pair, name) for pair in pairs.pairs])
        for name in ("label", "share", "votes")
    )
    better = symmetrized(first, second)
    chosen = [pair for pair in pairs.pairs if pair.decided]
    decided, firsts = label != UNDECIDED_LABEL, label > UNDECIDED_LABEL
    table = judge_accuracy_table(
        [pair.task for pair in chosen],
        [pair.dimension for pair in chosen],
        np.where(firsts, first, second)[decided],
        np.where(firsts, second, first)[decided],
        [pair.source for pair in chosen],
    )
    agreed = accuracy_by_agreement(better, label, share, votes)
    return {
        "rows": [
            {"task": task.value, "dimension": dimension.value, **vars(found)}
            for (task, dimension), found in table.items()
        ],
        "calibration": dataclasses.asdict(calibration(better, label)),
        "by_agreement": [dataclasses.asdict(one) for one in agreed],
        "on_policy": _on_policy(pairs.pairs, better),
    }


def validation_loss(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> float:
    """Mean of Eq. 3 over the pairs, without label smoothing; arguments as in `measure_judge`."""
    answers = _answers(ask, pairs, batch_size, mesh)
    label = np.array([pair.label for pair in pairs.pairs], np.float32)
    return float(np.mean(preference_loss(answers, label)))


def _on_policy(
    pairs: Sequence[LabelledPair], better: Float32[np.ndarray, " n"]
) -> list[dict[str, Any]]:
    """The judge on decided pairs of policy and base; `folder` names the round's candidates.

    `better`: the judge's probability that the first picture is better.
    """
    found: dict[str, dict[tuple[int, Dimension], tuple[Task, float, bool]]] = {}
    for number, pair in enumerate(pairs):
        first, second = editor_of(pair.first), editor_of(pair.second)
        if pair.decided and first != second:
            of_first = float(better[number]), pair.label > UNDECIDED_LABEL
            of_policy = of_first if first == POLICY else (1 - of_first[0], not of_first[1])
            found.setdefault(pair.folder, {})[number, pair.dimension] = (pair.task, *of_policy)
    rows = []
    for folder, cells in found.items():
        table = right_on_policy(
            {number: task for (number, _), (task, _, _) in cells.items()},
            {number: {asked: judged} for (number, asked), (_, judged, _) in cells.items()},
            {pair: policy_better for pair, (_, _, policy_better) in cells.items()},
        )
        rows += [
            {"folder": folder, "task": task.value, "dimension": asked.value, **vars(one)}
            for (task, asked), one in table.items()
        ]
    return rows


def read_on_policy(found: Mapping[str, Any]) -> RightOnPolicy | None:
    """The judge on pairs of policy and base of the last round in accuracy.json; None without."""
    cells = {}
    for row in found.get("on_policy", ()):
        row = dict(row)
        folder, *cell = (row.pop(name) for name in ("folder", "task", "dimension"))
        cells.setdefault(folder, {})[Task(cell[0]), Dimension(cell[1])] = RightOnPolicy(**row)
    return overall(cells[list(cells)[-1]]) if cells else None


def on_policy_headline(found: Mapping[str, Any]) -> Results:
    """`read_on_policy` for the closing table."""
    right = read_on_policy(found)
    if right is None:
        return {}
    told = f"{100 * right.accuracy:.1f} % ({counted(right.pairs, 'pair')} of policy and base)"
    return {"judge_right": told}


def _probabilities(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> Float32[np.ndarray, "n 2"]:
    """P("Yes") against P("No") of every pair, in the order (first, second) and turned."""
    both = _answers(ask, pairs, batch_size, mesh)
    return 1.0 / (1.0 + np.exp(both.no - both.yes))


def _answers(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> PairAnswers:
    """The answers to every pair, on the host."""
    yes, no = (np.empty((len(pairs), 2), np.float32) for _ in range(2))
    for part in same_size_parts(pairs.sizes, np.arange(len(pairs)), batch_size):
        elements = [pairs[index] for index in np.resize(part, batch_size)]
        batch = {name: np.stack([one[name] for one in elements]) for name in elements[0]}
        both = gather(ask(replicate(batch, mesh)))
        yes[part], no[part] = both.yes[: len(part)], both.no[: len(part)]
    return PairAnswers(yes, no)


def headline(rows: Sequence[Mapping[str, Any]]) -> Results:
    """Accuracy in % of fill, extend and removal, averaged over dimensions as in Table 1.

    With the total number of held-out pairs.
    """
    kinds = {
        "fill": (Task.FILL,),
        "extend": (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT),
        "removal": (Task.REMOVAL,),
        **{name: (Task(name),) for name in OWN.tasks},
    }
    result = {}
    for kind, tasks in kinds.items():
        found = [row for row in rows if row["task"] in tasks]
        if found:
            accuracy = 100.0 * float(np.mean([row["accuracy"] for row in found]))
            pairs = counted(sum(row["pairs"] for row in found), "pair")
            result[f"accuracy_{kind}"] = f"{accuracy:.1f} ({pairs})"
        else:
            result[f"accuracy_{kind}"] = "not measured (no held-out pairs)"
    return result
