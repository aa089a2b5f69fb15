"""Batches of triplets: tasks drawn with probability p_k (Algorithm 1), and an exact resume.

All pictures of a batch are of one size; where a data set has several, each batch draws its own.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int32, Integer

from onereward_jax.data.buckets import Size
from onereward_jax.tasks import SAMPLING_PROBABILITIES, TASKS, Task

ENDLESS = 2**48
"""Samples in a run that never ends."""

Batch = dict[str, Any]
Transform = Callable[[Batch], Batch]


@runtime_checkable
class TripletSequence(Protocol):
    """What batches are made of: `triplets.Triplets`."""

    tasks: Int32[np.ndarray, "n"]
    sizes: Int32[np.ndarray, "n 2"]

    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]: ...

    def with_task(self, task: Task) -> Int32[np.ndarray, "n"]:
        """The indices of all examples of a task."""


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


def train_batches(
    triplets: TripletSequence,
    batch_size: int,
    seed: int,
    *,
    mixing: Mixing = Mixing(),
    transform: Transform | None = None,
    rows: Integer[np.ndarray, "n"] | None = None,
    num_threads: int = 4,
) -> grain.DatasetIterator:
    """Endless batches of this process; see `to_batch` for what is in one.

    The size of a batch's pictures is drawn so that, over many batches, tasks come with p_k and the
    examples of a task equally often. The samples of a batch do not depend on how many processes
    share it. `get_state` of the iterator and `set_state` of a new one resume exactly; the state is
    the same in all processes and fits any other number of them.

    Args:
      triplets: what to draw from.
      batch_size: of all processes together.
      seed: of tasks and order.
      mixing: how tasks are drawn.
      transform: makes what a step takes out of a batch (embeddings for prompts, queries, ...). Runs
        in the reading threads.
      rows: which samples of a batch are this process's, from `parallel.local_rows`; left out: all.
      num_threads: that read ahead.

    Raises:
      ValueError: a task to be drawn has no examples.
    """
    for task, probability in mixing.probabilities.items():
        if probability > 0 and not len(triplets.with_task(task)):
            raise ValueError(f"{triplets!r} has no example of {task.value}, which is to be drawn")
    samples = mixed_rows(triplets.tasks, triplets.sizes, batch_size, seed, mixing).map(
        lambda row: to_sample(triplets, int(row))
    )
    batches = batches_of_rows(samples, batch_size, rows, batch_fn=to_batch)
    if transform is not None:
        batches = batches.map(transform)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(batches.to_iter_dataset(options))


def batches_of_rows(
    samples: grain.MapDataset,
    batch_size: int,
    rows: Integer[np.ndarray, "n"] | None = None,
    batch_fn: Callable[[Sequence[Any]], Any] | None = None,
) -> grain.MapDataset:
    """Batches of some rows only, of the batches that one process alone would make.

    Args:
      samples: endless.
      batch_size: of whole batches.
      rows: which of their samples; left out: all.
      batch_fn: stacks samples, as in grain.
    """
    rows = np.arange(batch_size) if rows is None else rows
    numbers = grain.MapDataset.range(ENDLESS).map(
        lambda number: number // len(rows) * batch_size + int(rows[number % len(rows)])
    )
    return numbers.map(lambda number: samples[number]).batch(len(rows), batch_fn=batch_fn)


def eval_batches(
    triplets: TripletSequence,
    batch_size: int,
    *,
    indices: Sequence[int] | Integer[np.ndarray, "n"] | None = None,
    transform: Transform | None = None,
) -> Iterator[Batch]:
    """The examples once, size by size and in order. Every batch is full: the last one of a size
    repeats its last sample.

    A batch has, beside what `to_batch` says, `valid`, bool [b]: False for such repetitions.

    Args:
      triplets: what to read.
      batch_size: samples per batch.
      indices: which examples; left out: all.
      transform: as in `train_batches`.
    """
    chosen = np.arange(len(triplets)) if indices is None else np.asarray(indices, np.int64)
    for part in same_size_parts(triplets.sizes[chosen], chosen, batch_size):
        valid = np.arange(batch_size) < len(part)
        padded = np.pad(part, (0, batch_size - len(part)), mode="edge")
        batch = to_batch([to_sample(triplets, int(index)) for index in padded]) | {"valid": valid}
        yield batch if transform is None else transform(batch)


def same_size_parts(
    sizes: Integer[np.ndarray, "n 2"], items: Integer[np.ndarray, "n"], batch_size: int
) -> Iterator[Integer[np.ndarray, "m"]]:
    """`items` in parts of at most `batch_size`, each of one size; in order within a size."""
    firsts = np.unique(sizes, axis=0, return_index=True)[1]
    for size in sizes[np.sort(firsts)]:
        found = items[(sizes == size).all(axis=1)]
        for start in range(0, len(found), batch_size):
            yield found[start : start + batch_size]


def to_sample(triplets: TripletSequence, index: int) -> dict[str, Any]:
    """Example `index` as a step takes it: a batch (see `to_batch`) without its leading axis."""
    example = triplets[index]
    pictures = {name: example[name].astype(np.float32) / 127.5 - 1 for name in ("image", "target")}
    return pictures | {
        "mask": (example["mask"] >= 128).astype(np.float32),
        "task": np.int32(triplets.tasks[index]),
        "index": np.int32(index),
        "has_target": np.bool_(example["has_target"]),
        "prompt": example["prompt"],
    }


def to_batch(samples: Sequence[dict[str, Any]]) -> Batch:
    """Stacks samples.

    Returns:
      image, target: float32 [b, h, w, 3] in [-1, 1]. has_target: bool [b]; where False, target
      means nothing. mask: float32 [b, h, w, 1], 1 = edit here.
      task: int32 [b], index into `tasks.TASKS`. index: int32 [b], number of the example in its
      split. prompt: object array [b] of str.
    """
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    batch["prompt"] = batch["prompt"].astype(object)
    return batch


def mixed_rows(
    tasks: Integer[np.ndarray, "n"],
    sizes: Integer[np.ndarray, "n 2"],
    batch_size: int,
    seed: int,
    mixing: Mixing,
) -> grain.MapDataset:
    """Endless row numbers, every `batch_size` of them of one size.

    Tasks come with their probabilities, and the rows of a task equally often.

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
    rows_of_size = {}
    for size, of_tasks in chances.items():
        has_size = (sizes == size).all(axis=1)
        rows = {task: np.flatnonzero(has_size & (tasks == TASKS.index(task))) for task in of_tasks}
        rows_of_size[size] = _mixed_tasks(rows, of_tasks, group, seed)
    shares = {size: sum(of_tasks.values()) for size, of_tasks in chances.items()}
    return _one_size_at_a_time(rows_of_size, shares, batch_size, seed)


def sizes_of(triplets: TripletSequence) -> list[Size]:
    """The sizes of pictures that occur, the most frequent one first."""
    counts = collections.Counter((int(height), int(width)) for height, width in triplets.sizes)
    return [size for size, _ in counts.most_common()]


def _one_size_at_a_time(
    streams: Mapping[Size, grain.MapDataset],
    shares: Mapping[Size, float],
    batch_size: int,
    seed: int,
) -> grain.MapDataset:
    """Endless samples, every `batch_size` of them from one and the same of the streams.

    Args:
      streams: endless samples of each size.
      shares: how often each size is drawn; they sum to 1.
      batch_size: samples per draw.
      seed: of the draws.
    """
    sizes = list(streams)
    if len(sizes) == 1:
        return streams[sizes[0]]
    probabilities = [shares[size] for size in sizes]
    draws = (
        grain.MapDataset.range(ENDLESS)
        .seed(seed + 1 + len(TASKS))
        .random_map(lambda _, rng: sizes[rng.choice(len(sizes), p=probabilities)])
    )
    return grain.MapDataset.range(ENDLESS).map(
        lambda number: streams[draws[number // batch_size]][number]
    )


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


def _mixed_tasks(
    rows: Mapping[Task, Integer[np.ndarray, "m"]],
    chances: Mapping[Task, float],
    group: int,
    seed: int,
) -> grain.MapDataset:
    """Endless row numbers: a task for each `group` of them, its rows shuffled."""
    streams = {}
    for task in chances:
        ordered = grain.MapDataset.source(rows[task])
        streams[task] = ordered.seed(seed + 1 + TASKS.index(task)).shuffle().repeat(None)
    tasks, probabilities = list(streams), np.array(list(chances.values()))
    draws = (
        grain.MapDataset.range(ENDLESS)
        .seed(seed)
        .random_map(
            lambda _, rng: tasks[rng.choice(len(tasks), p=probabilities / probabilities.sum())]
        )
    )
    return grain.MapDataset.range(ENDLESS).map(
        lambda number: streams[draws[number // group]][number]
    )
