"""Loads the rows of any format: pictures in parallel, order kept, all errors together."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
from collections.abc import Iterator

from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, load
from onereward_jax.common.listing import first_of
from onereward_jax.data.example import RowError
from onereward_jax.exchange.options import Source
from onereward_jax.parallel.progress import progress_bar

THREADS = min(16, os.cpu_count() or 4)
AHEAD = 2 * THREADS
"""Comparisons that are loaded ahead; their pictures are in memory."""


class Errors:
    """The bad rows of a file.

    Attributes:
      count: their number.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0
        self._lines: list[str] = []

    def add(self, place: str, error: RowError) -> None:
        """Remembers a bad row; of very many only the first are kept."""
        self.count += 1
        if len(self._lines) < 1000:
            self._lines.append(f"{place}: {error}")

    def message(self) -> str:
        """The listing: place and reason of each row."""
        head = f"{self.where}: {self.count} bad row{'s' * (self.count > 1)}"
        lines = first_of(self._lines)
        if self.count > len(self._lines):
            lines[-1] = f"and {self.count - len(lines) + 1} more"
        return "\n  ".join([head, *lines])

    def refuse(self) -> None:
        """Raises ValueError with the listing, if there are any."""
        if self.count:
            raise ValueError(self.message())


def loaded(
    source: Source, errors: Errors, description: str = "comparisons"
) -> Iterator[tuple[str, Loaded]]:
    """Yields (place, comparison with its pictures), in order, and adds bad rows to `errors`.

    At most `AHEAD` comparisons are in memory.
    """
    with (
        contextlib.closing(source.rows) as rows,
        progress_bar(description, source.total, unit="row") as bar,
        concurrent.futures.ThreadPoolExecutor(THREADS) as threads,
    ):
        waiting: collections.deque = collections.deque()
        for row in rows:
            waiting.append((row.place, threads.submit(_load, row)))
            if len(waiting) >= AHEAD:
                yield from _first(waiting, errors)
                bar.update()
        while waiting:
            yield from _first(waiting, errors)
            bar.update()


def _load(row: Row) -> Loaded | RowError:
    try:
        return load(row.given) if isinstance(row.given, Given) else row.given
    except RowError as error:
        return error


def _first(waiting: collections.deque, errors: Errors) -> Iterator[tuple[str, Loaded]]:
    place, future = waiting.popleft()
    found = future.result()
    if isinstance(found, RowError):
        errors.add(place, found)
    else:
        yield place, found
