"""Which row comes when: tasks with their probability p_k (Algorithm 1), and every row in its turn.

Nothing is carried from one draw to the next: row number n of a run is computed from n, so a run
resumes anywhere, and any number of processes see the same rows.
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
"""Samples in a run that never ends."""

BLOCK_BATCHES = 64
"""Batches in which every task, and every size, has a fixed number of turns. More would come nearer
to independent draws, fewer nearer to all tasks and sizes keeping the same pace."""

_UNIT = 2**32
"""Weights are integers of this sum, so that counts are exact however long a run is."""

_CACHED = 4
"""Blocks and epochs that are kept: threads read ahead, at most into the next one."""


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How tasks get into batches.

    Attributes:
      probabilities: p_k of every task that is to be drawn; they sum to 1.
      task_per: draw the task for every "sample", or for every "iteration": then all samples of a
        batch, on all processes, are of one task, as Algorithm 1 writes it.
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
"""The p_k of the paper, drawn for every sample."""


def mixed_rows(
    tasks: Integer[np.ndarray, "n"],
    sizes: Integer[np.ndarray, "n 2"],
    batch_size: int,
    seed: int,
    mixing: Mixing,
) -> grain.MapDataset:
    """Endless row numbers, every `batch_size` of them of one size.

    Tasks come with their probabilities, and the sizes of a task as often as it has rows of them.
    Of each task and size, every row comes once, in random order, before any comes again.

    Args:
      tasks: of the rows, as indices into `tasks.TASKS`; all that are to be drawn are among them.
      sizes: height and width of each row's pictures.
      batch_size: rows per draw of a size.
      seed: of tasks, sizes and order.
      mixing: how tasks are drawn.
    """
    # All rows that share the draw of a task: a whole batch, or one row alone.
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
    """Endless draws of one of several options, each as often as its weight says.

    In a block the options come in random order, but a fixed number of times. So it is known how
    often one has come before any block, without drawing what is before.

    Args:
      weights: of the options, > 0.
      block_length: draws per block.
      seed, name: what the order depends on.

    Returns:
      number of a draw -> (option, how often it was drawn before).
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
    """How many of the first `count` turns each option has.

    They add up to `count`, never fall as it grows, and differ from its exact part by less than the
    number of options.
    """
    found, left, total = [], count, sum(shares)
    for share in shares:
        # one option against all that follow: neither side loses a turn when there is one more
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
    """Endless rows of one size: a task for each `group` of them, its rows in turn."""
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
    """The rows over and over, in another order each time."""

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
    """P(size, task): p_k, spread over the sizes as the rows of task k are."""
    chances: dict[Size, dict[Task, float]] = collections.defaultdict(dict)
    for task in (task for task in TASKS if mixing.probabilities.get(task, 0) > 0):
        of_task = sizes[tasks == TASKS.index(task)]
        found, counts = np.unique(of_task, axis=0, return_counts=True)
        for (height, width), count in zip(found.tolist(), counts):
            share = float(mixing.probabilities[task] * count / len(of_task))
            chances[height, width][task] = share
    return chances
