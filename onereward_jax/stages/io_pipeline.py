"""Reading, computing and writing at the same time, batch after batch.

While the devices work on one batch, threads read the next ones and write the former ones. The
order of batches is kept, and so is what each of them comes to: only the waiting is gone.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Written = TypeVar("Written")

AHEAD = 2
"""So many batches lie read before the devices want them, and so many wait to be written."""

MOST_THREADS = 32


def overlapped(
    batches: Iterable[Sequence[Item]],
    read: Callable[[Item], Read],
    compute: Callable[[int, Sequence[Read]], Iterable[Made]],
    write: Callable[[Made], Written],
    *,
    ahead: int = AHEAD,
    threads: int | None = None,
) -> Iterator[list[Written]]:
    """What is written of each batch, in the order of the batches.

    To leave the loop over this early cancels what no thread has begun, and waits for the rest: what
    is being written is finished.

    Args:
      batches: of the items to be read; looked at `ahead` batches early.
      read: one item; called in threads. Decoders of pictures let threads run side by side.
      compute: given the number of the batch and all that was read of it, in the order of its
        items. Called in this thread, batch after batch. It should start the devices and not wait
        for them; what it returns goes to `write`, one by one.
      write: called in threads of its own, so that waiting for the devices keeps none from reading.
      ahead: how many batches are read in advance, and how many may be computed that are not yet
        written: so many are in memory at once.
      threads: for reading, and as many for writing; left out: as many as there are CPU cores.

    Raises:
      Exception: of `read`, `compute` or `write`, after what was written of the batches before.
    """
    threads = threads or min(os.cpu_count() or 1, MOST_THREADS)
    batches = enumerate(batches)
    reading: collections.deque[tuple[int, list[Future[Read]]]] = collections.deque()
    writing: collections.deque[list[Future[Written]]] = collections.deque()
    readers = ThreadPoolExecutor(threads, "read")
    writers = ThreadPoolExecutor(threads, "write")

    def read_on() -> None:
        while len(reading) < ahead and (following := next(batches, None)) is not None:
            number, items = following
            reading.append((number, [readers.submit(read, item) for item in items]))

    try:
        read_on()
        while reading:
            number, items = reading.popleft()
            read_on()
            made = compute(number, [item.result() for item in items])
            del items  # what was read is in memory no longer than the batch
            writing.append([writers.submit(write, one) for one in made])
            del made
            while len(writing) > ahead:
                yield [one.result() for one in writing.popleft()]
        while writing:
            yield [one.result() for one in writing.popleft()]
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)
