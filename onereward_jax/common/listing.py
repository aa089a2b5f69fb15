"""Long lists in messages: the first entries, and the number of the others."""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 20


def first_of(entries: Sequence[str], count: int = LISTED) -> list[str]:
    """The first `count` entries, plus "and N more" if there are more."""
    rest = len(entries) - count
    return [*entries[:count], f"and {rest} more"] if rest > 0 else list(entries)
