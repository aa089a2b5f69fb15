"""The order of rows: tasks with probability p_k (Algorithm 1), every row once per epoch.

The order is stateless: the n-th row of a run is a function of n. So a run can resume anywhere, and
the rows do not depend on the number of processes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import grain
import numpy as np
from jaxtyping import Int64, Integer

from onereward_jax.common.rng import generator
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.tasks import SAMPLING_PROBABILITIES, TASKS, Task

ENDLESS = 2**48
"""Length of an endless data set."""

BLOCK_BATCHES = 64
"""Batches per block; in each block, every task and size has a fixed count. Longer blocks are closer
to independent draws, shorter ones to a fixed rotation."""

_UNIT = 2**32
"""Weights are integers with this sum, so that counts are exact for any length of a run."""

_CACHED = 4
"""Cached blocks and epochs: threads read ahead at most into the next one."""


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How tasks are drawn.

    Attributes:
      probabilities: p_k per task; sum to 1.
      task_per: draw the task per "sample", or per "iteration": then all samples of a global batch
        have the same task, as in Algorithm 1.

    Raises:
      ValueError: a field is out of range.
    """

    probabilities: Mapping[Task, float] = dataclasses.field(
        default_factory=lambda: dict(SAMPLING_PROBABILITIES)
    )
    task_per: Literal["sample", "iteration"] = "sample"

    def __post_init__(self) -> None:
        values = np.array(list(self.probabilities.values()))
        if (values < 0).any() or abs(values.sum() - 1) > 1e-6:
            raise ValueError(f"probabilities must be >= 0 and sum to 1, found {values.tolist()}")
        if self.task_per not in ("sample", "iteration"):
            raise ValueError(f'task_per must be "sample" or "iteration", found {self.task_per!r}')


AS_PUBLISHED = Mixing()
"""The paper's p_k, drawn per sample."""


def mixed_rows(
    tasks: Integer[np.ndarray, "n"],
    sizes: Integer[np.ndarray, "n 2"],
    batch_size: int,
    seed: int,
    mixing: Mixing,
) -> grain.MapDataset:
    """Endless row indices, in batches of `batch_size` rows of one size.

    Tasks are drawn with their probabilities, the sizes of a task in proportion to its rows. Within
    each task and size, every row is drawn once per epoch, in random order.

    Args:
      tasks: task of each row, an index into `tasks.TASKS`; has every task with p_k > 0.
      sizes: image height and width of each row.
      batch_size: rows per batch.
      seed: seed of tasks, sizes and order.
      mixing: how tasks are drawn.
    """
    # Number of rows that share one draw of a task: a batch, or a single row.
    group = batch_size if mixing.task_per == "iteration" else 1
    chances = _chances(tasks, sizes, mixing)
    streams = []
    for size, of_tasks in chances.items():
        has_size = (sizes == size).all(axis=1)
        rows = {task: np.flatnonzero(has_size & (tasks == TASKS.index(task))) for task in of_tasks}
        streams.append(_rows_of_size(rows, of_tasks, batch_size, group, seed, size))
    of_sizes = [sum(of_tasks.values()) for of_tasks in chances.values()]
    draw_size = draws(of_sizes, BLOCK_BATCHES, seed, "size")

    def row(number: int) -> int:
        batch, place = divmod(number, batch_size)
        size, earlier = draw_size(batch)
        return streams[size](earlier * batch_size + place)

    return grain.MapDataset.range(ENDLESS).map(row)


def draws(
    weights: Sequence[float], block_length: int, seed: int, name: str
) -> Callable[[int], tuple[int, int]]:
    """Endless weighted draws of options, stratified in blocks.

    In each block the options are in random order, with fixed counts. So the number of earlier draws
    of an option is known without drawing the earlier blocks.

    Args:
      weights: weights of the options, > 0.
      block_length: draws per block.
      seed, name: seed of the order.

    Returns:
      Function from index of a draw to (option, number of earlier draws of that option).
    """
    shares = [max(1, round(_UNIT * weight / sum(weights))) for weight in weights]

    @functools.lru_cache(maxsize=_CACHED)
    def block(index: int) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
        before, after = (turns(shares, block_length * end) for end in (index, index + 1))
        options = np.repeat(np.arange(len(shares)), np.subtract(after, before))
        options = generator(seed, name, index).permutation(options)
        earlier = np.empty(block_length, np.int64)
        for option, count in enumerate(before):
            places = np.flatnonzero(options == option)
            earlier[places] = count + np.arange(len(places))
        return options, earlier

    def draw(number: int) -> tuple[int, int]:
        index, place = divmod(number, block_length)
        options, earlier = block(index)
        return int(options[place]), int(earlier[place])

    return draw


def turns(shares: Sequence[int], count: int) -> list[int]:
    """How many of the first `count` draws each option gets.

    The numbers sum to `count`, are monotonic in it, and differ from the exact proportions by less
    than the number of options.
    """
    found, left, total = [], count, sum(shares)
    for share in shares:
        # Split between one option and all following ones: both sides are monotonic in `left`.
        taken = left * share // total
        found.append(taken)
        left, total = left - taken, total - share
    return found


def _rows_of_size(
    rows: Mapping[Task, Integer[np.ndarray, "m"]],
    chances: Mapping[Task, float],
    batch_size: int,
    group: int,
    seed: int,
    size: Size,
) -> Callable[[int], int]:
    """Endless rows of one size: one task per `group` of rows, and the task's rows in epochs."""
    name = f"{size[0]}x{size[1]}"
    orders = [_in_turn(rows[task], seed, f"order {name} {task.value}") for task in chances]
    block_length = BLOCK_BATCHES * batch_size // group
    draw_task = draws(list(chances.values()), block_length, seed, f"task {name}")

    def row(number: int) -> int:
        turn, place = divmod(number, group)
        task, earlier = draw_task(turn)
        return orders[task](earlier * group + place)

    return row


def _in_turn(rows: Integer[np.ndarray, "m"], seed: int, name: str) -> Callable[[int], int]:
    """Endless epochs of rows, in a new order each."""

    @functools.lru_cache(maxsize=_CACHED)
    def order(epoch: int) -> Integer[np.ndarray, "m"]:
        return generator(seed, name, epoch).permutation(rows)

    def row(number: int) -> int:
        epoch, place = divmod(number, len(rows))
        return int(order(epoch)[place])

    return row


def _chances(
    tasks: Integer[np.ndarray, "n"], sizes: Integer[np.ndarray, "n 2"], mixing: Mixing
) -> dict[Size, dict[Task, float]]:
    """P(size, task): p_k times the fraction of task k's rows that have the size."""
    chances: dict[Size, dict[Task, float]] = collections.defaultdict(dict)
    for task in (task for task in TASKS if mixing.probabilities.get(task, 0) > 0):
        of_task = sizes[tasks == TASKS.index(task)]
        found, counts = np.unique(of_task, axis=0, return_counts=True)
        for (height, width), count in zip(found.tolist(), counts):
            share = float(mixing.probabilities[task] * count / len(of_task))
            chances[height, width][task] = share
    return chances
