"""Long lists in messages: the first entries, and the number of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LISTED = 20
LONGEST = 300
"""Characters of an entry: names that come from files may have any length."""


def first_of(entries: Sequence[str], count: int = LISTED) -> list[str]:
    """The first `count` entries, plus "and N more" if there are more; long ones are cut."""
    shown = [_cut(one) for one in entries[:count]]
    rest = len(entries) - count
    return [*shown, f"and {rest} more"] if rest > 0 else shown


def listed(entries: Sequence[str], count: int = LISTED) -> str:
    """`first_of` as indented lines, for the end of a message: `"3 bad rows:" + listed(rows)`."""
    return "".join(f"\n  {one}" for one in first_of(entries, count))


def shown(value: Any) -> str:
    """The repr of a value found in a file, which may be long."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
