"""Measures the judge on held-out pairs: accuracy per task and dimension, and its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from onereward_jax.chain.stage import Results
from onereward_jax.data.pipeline import same_size_parts
from onereward_jax.evaluation.intervals import counted
from onereward_jax.evaluation.judge_accuracy import judge_accuracy_table
from onereward_jax.parallel import gather, replicate
from onereward_jax.stages.pair_source import PairSource
from onereward_jax.tasks import OWN, Task
from onereward_jax.training.preference_loss import PairAnswers


def measure_judge(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> dict[str, Any]:
    """The contents of accuracy.json, but for the step; all processes call it.

    Args:
      ask: the judge's answers to a batch with the fields of `pairs`.
      pairs: held-out pairs; those with label 0.5 have no right answer and are left out.
      batch_size: pairs per batch.
      mesh: the mesh.

    Returns:
      rows: one per task and dimension, with the fields of `JudgeAccuracy`.
    """
    probabilities = _probabilities(ask, pairs, batch_size, mesh)
    decided = [index for index, pair in enumerate(pairs.pairs) if pair.decided]
    turns = [1 if pairs.pairs[index].label > 0.5 else -1 for index in decided]
    winner_first, loser_first = np.array(
        [probabilities[index, ::turn] for index, turn in zip(decided, turns)]
    ).T
    table = judge_accuracy_table(
        [pairs.pairs[index].task for index in decided],
        [pairs.pairs[index].dimension for index in decided],
        winner_first,
        loser_first,
    )
    rows = [
        {"task": task.value, "dimension": dimension.value, **vars(found)}
        for (task, dimension), found in table.items()
    ]
    return {"rows": rows}


def _probabilities(
    ask: Callable[[Mapping[str, Array]], PairAnswers],
    pairs: PairSource,
    batch_size: int,
    mesh: Mesh,
) -> Float32[np.ndarray, "n 2"]:
    """P("Yes") against P("No") of every pair, in the order (first, second) and turned."""
    probabilities = np.empty((len(pairs), 2), np.float32)
    for part in same_size_parts(pairs.sizes, np.arange(len(pairs)), batch_size):
        elements = [pairs[index] for index in np.resize(part, batch_size)]
        batch = {name: np.stack([one[name] for one in elements]) for name in elements[0]}
        both = gather(ask(replicate(batch, mesh)))
        probabilities[part] = (1.0 / (1.0 + np.exp(both.no - both.yes)))[: len(part)]
    return probabilities


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
