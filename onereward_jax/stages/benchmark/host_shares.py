"""Work that every host does on its own devices: rows of one size, a batch for each host at a time.

The chunks and the batches do not depend on what is finished already, and every process has a batch
in each chunk: so all compile the same programs in the same order, as `MeshFunction` requires.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax

Item = TypeVar("Item")


class Share(NamedTuple):
    """A chunk, and a process's part of it.

    Attributes:
      chunk: items of all processes.
      batch: those of this process, padded with copies to the batch size.
      count: how many of `batch` are its own; the others are padding.
    """

    chunk: list
    batch: list
    count: int

    @property
    def own(self) -> list:
        """The items of this process, without padding."""
        return self.batch[: self.count]


def host_shares(
    items: Sequence[Item], size_of: Callable[[Item], tuple[int, int]], batch_size: int
) -> Iterator[Share]:
    """The shares of this process, in the order of sizes.

    Args:
      items: the same on all processes.
      size_of: items of different sizes are in different chunks.
      batch_size: items of a process per chunk.
    """
    for _, same in itertools.groupby(sorted(items, key=size_of), key=size_of):
        same = list(same)
        for start in range(0, len(same), batch_size * jax.process_count()):
            chunk = same[start : start + batch_size * jax.process_count()]
            first = batch_size * jax.process_index()
            own = chunk[first : first + batch_size]
            padding = [(own or chunk)[-1]] * (batch_size - len(own))
            yield Share(chunk, own + padding, len(own))
