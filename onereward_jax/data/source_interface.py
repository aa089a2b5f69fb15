"""The interface of data sources, e.g. `folder_source` or your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import Example, RowError, Split


@runtime_checkable
class TripletSource(Protocol):
    """A source of triplets; made by a plug-in named in `config.data.source`."""

    @property
    def sizes(self) -> Sequence[Size]:
        """All image sizes."""

    @property
    def splits(self) -> Sequence[Split]:
        """The split of each of its rows."""

    def example(self, row: int) -> Example:
        """The triplet of a row; deterministic and thread-safe. Raises RowError."""

    def refuse(self, errors: Mapping[int, RowError]) -> None:
        """Raises ValueError listing `errors` (by row index) and the source's own, if any."""
