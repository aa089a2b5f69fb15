"""What a data source is: whoever gives triplets, such as `folder_source` or one of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import Example, RowError, Split


@runtime_checkable
class TripletSource(Protocol):
    """Where triplets come from; a plug-in of `config.data.source` makes one."""

    @property
    def sizes(self) -> Sequence[Size]:
        """The sizes that pictures come in."""

    @property
    def splits(self) -> Sequence[Split]:
        """The split of each of its rows."""

    def example(self, row: int) -> Example:
        """The triplet of a row, the same one at every call, on any thread. Raises RowError."""

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Raises ValueError with all that is wrong, rows by their number, if anything is."""
