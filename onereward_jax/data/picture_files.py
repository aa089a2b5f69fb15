"""The picture files below a folder, by suffix."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Of pictures; in any case."""

PHOTOGRAPH_FILES = (*SUFFIXES, ".txt")
"""Of pictures, and of the captions beside them."""


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Sorted paths, relative to `folder`, of the files in it and in its subfolders.

    Names that begin with a dot are skipped: other programs keep thumbnails there. Symbolic links
    to folders are not followed.

    Args:
      folder: the folder.
      suffixes: in lower case; those of the files count in any case.

    Raises:
      ValueError: the name of such a file is not Unicode.
    """
    names = []
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            Path(top, name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(suffixes)
        ]
    for name in names:
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ValueError(f"{folder}: the file name {name!a} is not UTF-8: rename it")
    return sorted(names)


def by_letters(names: Iterable[str]) -> dict[str, str]:
    """Name in Unicode's form NFC -> name, to find a file that a system stores in another form."""
    return {unicodedata.normalize("NFC", name): name for name in names}


def only_pictures(names: Iterable[str]) -> list[str]:
    """Those that have one of `SUFFIXES`, in the same order."""
    return [name for name in names if name.lower().endswith(SUFFIXES)]
