"""Which triplets or pairs the stage `rl` draws, shows and measures with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from ml_collections import FrozenConfigDict

from onereward_jax.common.rng import generator
from onereward_jax.data.mixing import Mixing
from onereward_jax.data.pipeline import TripletSequence, sizes_of
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.rl_pairs import PairsWithTriplets
from onereward_jax.stages.rl_settings import task_probabilities
from onereward_jax.tasks import Task


def mixing_of(config: FrozenConfigDict, samples: TripletSequence) -> Mixing:
    """How the run draws the tasks of its samples; raises as `available_tasks`."""
    return Mixing(available_tasks(task_probabilities(config), samples), config.rl.task_per)


def available_tasks(
    probabilities: Mapping[Task, float], samples: TripletSequence
) -> dict[Task, float]:
    """p_k of the tasks that occur in the samples, normalised to sum to 1.

    Raises:
      ValueError: none of the tasks occurs.
    """
    found = {task: p for task, p in probabilities.items() if len(samples.with_task(task))}
    if not found:
        raise ValueError(
            f"config.rl.task_probabilities: the training split has no {_kind(samples)} of "
            + ", ".join(probabilities)
        )
    return {task: p / sum(found.values()) for task, p in found.items()}


def announce_lacking(probabilities: Mapping[Task, float], samples: TripletSequence) -> None:
    """Announces the tasks that do not occur in the samples."""
    if lacking := [task.value for task in probabilities if not len(samples.with_task(task))]:
        announce(
            f"rl: the training split has no {_kind(samples)} of {', '.join(lacking)}: left out"
        )


def _kind(samples: TripletSequence) -> str:
    return "pair" if isinstance(samples, PairsWithTriplets) else "triplet"


def one_of_each(
    config: FrozenConfigDict,
    triplets: TripletSequence,
    step: int | None = None,
    *,
    among: Collection[int] | None = None,
) -> Sequence[int]:
    """Rows of up to a batch of triplets of the most frequent size, cycling over tasks.

    Args:
      config: the full config.
      triplets: those of the training split.
      step: None: the first ones of each task, to show; otherwise others at each step, to measure.
      among: rows to choose from; None: all.
    """
    usual = (triplets.sizes == sizes_of(triplets)[0]).all(axis=1)
    if among is not None:
        usual &= np.isin(np.arange(len(usual)), list(among))
    found = [triplets.with_task(task) for task in task_probabilities(config)]
    kept = [rows[usual[rows]] for rows in found]
    if step is not None:
        drawn = generator(config.seed, "measured", step)
        kept = [drawn.permutation(rows) for rows in kept]
    by_task = [rows.tolist() for rows in kept if len(rows)]
    turns = [row for rows in zip(*by_task) for row in rows]
    return turns[: config.rl.batch_size]
