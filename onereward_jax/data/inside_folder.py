"""Refuses paths in rows that lead out of their folder."""

from __future__ import annotations

import pathlib

from onereward_jax.data.example import RowError


def check_inside(field: str, name: str) -> None:
    """Raises RowError if a path of a row leads out of its folder."""
    path = pathlib.PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise RowError(f"{field} {name!r} leads out of the folder")
