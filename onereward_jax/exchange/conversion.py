"""Converts opened preferences to another format: all of them, or nothing is written."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from onereward_jax.annotation.given_comparisons import Loaded
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.exchange.folder import FolderWriter, Written
from onereward_jax.exchange.formats import FORMATS
from onereward_jax.exchange.loading import Errors, loaded
from onereward_jax.exchange.options import Options, Source


def check_new(folder: pathlib.Path) -> None:
    """Raises ValueError if the folder exists."""
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"--to: {folder} exists already: name a new folder")


def import_to(
    folder: pathlib.Path, source: Source, where: str, *, skip: bool = False
) -> tuple[Written, str]:
    """Writes a preferences folder; returns what it got, and the listing of rows left out ("").

    Args:
      folder: the new folder.
      source: the opened file or folder.
      where: its name in messages.
      skip: leave out bad rows instead of refusing them.

    Raises:
      ValueError: the folder exists, or rows are bad (all are listed): nothing is written.
    """
    check_new(folder)
    errors = Errors(where)
    with atomic_folder(folder) as draft:
        writer = FolderWriter(draft)
        for place, one in loaded(source, errors):
            # With a bad row nothing will be kept, unless it is left out.
            if skip or not errors.count:
                writer.add(place, one)
        written = writer.finish(errors, license=source.license, origin=source.origin, skip=skip)
    return written, errors.message() if errors.count else ""


def export_to(
    folder: pathlib.Path, format: str, source: Source, where: str, options: Options
) -> int:
    """Writes the comparisons in a format; returns their number.

    Raises:
      ValueError: the folder exists, or comparisons are bad (all are listed): nothing is written.
    """
    check_new(folder)
    errors, count = Errors(where), 0

    def good() -> Iterator[tuple[str, Loaded]]:
        nonlocal count
        for place, one in loaded(source, errors):
            if not errors.count:
                count += 1
                yield place, one
        errors.refuse()

    with atomic_folder(folder) as draft:
        FORMATS[format].write(good(), draft, source, options)
        if not count:
            raise ValueError(f"{where} has no comparisons")
    return count
