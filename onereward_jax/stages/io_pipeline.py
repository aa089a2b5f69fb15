"""Overlaps reading, computing and writing of batches.

While the devices compute one batch, threads read the next ones and write the previous ones. The
order and content of batches do not change.
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
"""Number of batches to read in advance, and of batches waiting to be written."""

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
    """Yields the results of `write` for each batch, in batch order.

    Leaving the loop early cancels pending work, and waits for running writes.

    Args:
      batches: items to read, per batch; consumed `ahead` batches early.
      read: reads one item; called in threads. Image decoders release the GIL.
      compute: (index of the batch, its read items in order) -> results for `write`. Called in this
        thread. It should dispatch to the devices without blocking.
      write: writes one result; called in separate threads, which may block on the devices.
      ahead: number of batches to read in advance, and of computed batches waiting to be written;
        bounds the memory.
      threads: number of threads for reading, and for writing; None: number of CPU cores.

    Raises:
      Exception: an exception of `read`, `compute` or `write`, after yielding earlier batches.
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
            del items  # free the inputs of the batch
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
