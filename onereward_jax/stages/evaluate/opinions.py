"""What judges and the oracle think of the policy's pictures beside the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onereward_jax.convert import resolve_folder
from onereward_jax.data.pipeline import eval_batches, sizes_of
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gains import ByDimension
from onereward_jax.evaluation.gsb import Verdict, verdict_of
from onereward_jax.parallel import gather, mesh_jit, shard_whole
from onereward_jax.reward import QueryBatch
from onereward_jax.reward.loading import Judge, load_judge_params, read_judge
from onereward_jax.stages.evaluate.edits import Pictures
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.settings import judge_options
from onereward_jax.stages.stage import StageContext
from onereward_jax.tasks import DIMENSIONS, TASKS

HELD_OUT = "config.evaluate.judge"


def held_out_folder(context: StageContext) -> Path | None:
    """The folder of the judge that the policy was not trained against; None without one.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    name = context.config.evaluate.judge
    return resolve_folder(name, HELD_OUT) if name else None


def open_judge(folder: Path, size: tuple[int, int], options: Mapping[str, Any], what: str) -> Judge:
    """`read_judge` whose errors say which judge it is.

    Raises:
      FileNotFoundError, ValueError: as `read_judge`.
    """
    try:
        return read_judge(folder, size, **options)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from error


def judge_preferences(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    pictures: tuple[Pictures, Pictures],
    folder: Path,
    *,
    what: str,
    int8: bool = False,
) -> dict[int, ByDimension]:
    """A judge's probability that the policy's result is the better one, asked in both orders.

    The judge computes as in the stage `rl`: other numbers would tell of another judge.

    Args:
      context: of the stage.
      triplets, rows: what is compared.
      pictures: of the base, of the policy.
      folder: the judge's.
      what: names the judge in errors and on the progress bar.
      int8: see `load_judge_params`.

    Raises:
      FileNotFoundError, ValueError: as `read_judge`, or a prompt is too long for the judge.
    """
    config, mesh, (base, policy) = context.config.evaluate, context.mesh, pictures
    options = judge_options(context.config)
    judges = {size: open_judge(folder, size, options, what) for size in sizes_of(triplets)}
    params = load_judge_params(folder, next(iter(judges.values())).scorer, mesh, int8=int8)
    ask = {size: mesh_jit(judge.scorer.score, mesh) for size, judge in judges.items()}
    preferences = {}
    with progress_bar(what, len(rows), unit="triplet") as bar:
        for batch in eval_batches(triplets, config.batch_size, indices=rows):
            size, tasks = batch["image"].shape[1:3], [TASKS[task] for task in batch["task"]]
            try:
                asked = judges[size].queries.encode(tasks, list(batch["prompt"]))
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from error
            inputs = shard_whole(
                {
                    "policy": _stack(policy, batch["index"]),
                    "base": _stack(base, batch["index"]),
                    **asked._asdict(),
                },
                mesh,
            )
            queries = QueryBatch(*(inputs[name] for name in QueryBatch._fields))
            forth = gather(ask[size](params, inputs["policy"], inputs["base"], queries))
            back = gather(ask[size](params, inputs["base"], inputs["policy"], queries))
            first, second = (1.0 / (1.0 + np.exp(no - yes)) for yes, no in (forth, back))
            preference = (first + 1.0 - second) / 2.0
            for row, task, values, valid in zip(batch["index"], tasks, preference, batch["valid"]):
                if valid:
                    preferences[int(row)] = dict(zip(DIMENSIONS[task], values.tolist()))
            bar.update(int(batch["valid"].sum()))
    return preferences


def preferred(preference: ByDimension, margin: float) -> Verdict:
    """What a judge says who prefers the first picture this much, in [0, 1] for each dimension."""
    return verdict_of(float(np.mean(list(preference.values()))) - 0.5, margin)


def _stack(pictures: Pictures, rows: Sequence[int]) -> np.ndarray:
    return np.stack([np.float32(pictures[int(row)]) / 127.5 - 1.0 for row in rows])
