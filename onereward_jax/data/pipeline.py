"""Batches of triplets, in the order of `mixing`, and an exact resume.

All pictures of a batch are of one size; where a data set has several, each batch draws its own.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int32, Integer

from onereward_jax.common.pixels import from_uint8
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import AS_PUBLISHED, ENDLESS, Mixing, mixed_rows
from onereward_jax.tasks import Task

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


def train_batches(
    triplets: TripletSequence,
    batch_size: int,
    seed: int,
    *,
    mixing: Mixing = AS_PUBLISHED,
    transform: Transform | None = None,
    rows: Integer[np.ndarray, "n"] | None = None,
    num_threads: int = 4,
) -> grain.DatasetIterator:
    """Endless batches of this process; see `to_batch` for what is in one.

    Tasks come with p_k. Of each task and size of pictures, every example comes once before any
    comes again. The samples of a batch do not depend on how many processes share it. `get_state` of
    the iterator and `set_state` of a new one resume exactly; the state is the same in all processes
    and fits any other number of them.

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
    sizes: Integer[np.ndarray, "n k"], items: Integer[np.ndarray, "n"], batch_size: int
) -> Iterator[Integer[np.ndarray, "m"]]:
    """`items` in parts of at most `batch_size`, each of one size; in order within a size.

    A size is height and width, and whatever else the compiled function depends on.
    """
    firsts = np.unique(sizes, axis=0, return_index=True)[1]
    for size in sizes[np.sort(firsts)]:
        found = items[(sizes == size).all(axis=1)]
        for start in range(0, len(found), batch_size):
            yield found[start : start + batch_size]


def to_sample(triplets: TripletSequence, index: int) -> dict[str, Any]:
    """Example `index` as a step takes it: a batch (see `to_batch`) without its leading axis."""
    example = triplets[index]
    pictures = {name: from_uint8(example[name]) for name in ("image", "target")}
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


def sizes_of(triplets: TripletSequence) -> list[Size]:
    """The sizes of pictures that occur, the most frequent one first."""
    counts = collections.Counter((int(height), int(width)) for height, width in triplets.sizes)
    return [size for size, _ in counts.most_common()]
