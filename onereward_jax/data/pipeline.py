"""Batches of triplets, in the order of `mixing`, with exact resume.

All images of a batch have the same size; with multiple sizes, each batch draws one.
"""

from __future__ import annotations

import collections
import functools
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
    """The interface of data sets for batches, e.g. `triplets.Triplets`."""

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
    read: Callable[[int, int], dict[str, Any]] | None = None,
    num_threads: int = 4,
) -> grain.DatasetIterator:
    """Endless host-local batches; see `to_batch` for their fields.

    Tasks are drawn with p_k. Within each task and image size, every example is drawn once per
    epoch. Global batches do not depend on the number of processes. The iterator's `get_state` and
    `set_state` resume exactly; the state is the same on all processes and valid for any number of
    them.

    Args:
      triplets: the data set.
      batch_size: global batch size.
      seed: seed of tasks and order.
      mixing: how tasks are drawn.
      transform: batch -> inputs of the step (adds prompt embeddings, queries, ...). Runs in the
        loader threads.
      rows: indices of this process's samples in a batch, from `parallel.local_rows`; None: all.
      read: (index, number of the sample in the run) -> a sample; None: `to_sample`.
      num_threads: loader threads.

    Raises:
      ValueError: a task with p_k > 0 has no examples.
    """
    for task, probability in mixing.probabilities.items():
        if probability > 0 and not len(triplets.with_task(task)):
            raise ValueError(f"{triplets!r} has no example of {task.value}, which is to be drawn")
    reads = read or (lambda row, number: to_sample(triplets, row))
    samples = mixed_rows(triplets.tasks, triplets.sizes, batch_size, seed, mixing).map_with_index(
        lambda number, row: reads(int(row), number)
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
    """Selects the same rows from every global batch.

    Args:
      samples: endless data set.
      batch_size: global batch size.
      rows: indices of the samples to keep in each batch; None: all.
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
    read: Callable[[int], dict[str, Any]] | None = None,
) -> Iterator[Batch]:
    """One pass over the examples, in order, grouped by size. The last batch of a size is padded
    with its last sample.

    Batches have the fields of `to_batch` and `valid`, bool [b], False for padding.

    Args:
      triplets: the data set.
      batch_size: samples per batch.
      indices: examples to read; None: all.
      transform: as in `train_batches`.
      read: index -> a sample; None: `to_sample`.
    """
    reads = read or functools.partial(to_sample, triplets)
    chosen = np.arange(len(triplets)) if indices is None else np.asarray(indices, np.int64)
    for part in same_size_parts(triplets.sizes[chosen], chosen, batch_size):
        valid = np.arange(batch_size) < len(part)
        padded = np.pad(part, (0, batch_size - len(part)), mode="edge")
        batch = to_batch([reads(int(index)) for index in padded]) | {"valid": valid}
        yield batch if transform is None else transform(batch)


def same_size_parts(
    sizes: Integer[np.ndarray, "n k"], items: Integer[np.ndarray, "n"], batch_size: int
) -> Iterator[Integer[np.ndarray, "m"]]:
    """Splits `items` into parts of at most `batch_size`, each of one size; in order within a size.

    A size is height and width, plus anything else that the compiled function depends on.
    """
    firsts = np.unique(sizes, axis=0, return_index=True)[1]
    for size in sizes[np.sort(firsts)]:
        found = items[(sizes == size).all(axis=1)]
        for start in range(0, len(found), batch_size):
            yield found[start : start + batch_size]


def to_sample(triplets: TripletSequence, index: int) -> dict[str, Any]:
    """Example `index` with the fields of `to_batch`, without the batch axis."""
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
      image, target: float32 [b, h, w, 3] in [-1, 1]. has_target: bool [b]; where False, target is
      a placeholder. mask: float32 [b, h, w, 1], 1 = edit here.
      task: int32 [b], index into `tasks.TASKS`. index: int32 [b], index of the example in its
      split. prompt: object array [b] of str.
    """
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    batch["prompt"] = batch["prompt"].astype(object)
    return batch


def sizes_of(triplets: TripletSequence) -> list[Size]:
    """The image sizes of a data set, most frequent first."""
    counts = collections.Counter((int(height), int(width)) for height, width in triplets.sizes)
    return [size for size, _ in counts.most_common()]
