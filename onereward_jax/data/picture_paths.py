"""Paths of pictures in rows, as people write them: relative to a folder, and staying inside."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import unicodedata

from onereward_jax.common.listing import shown
from onereward_jax.data.example import RowError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
LONGEST = 100
"""Characters of a name that is too long for a file."""

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def check_inside(field: str, name: str, *, anywhere: bool = False, allow: str = "") -> None:
    """Checks a path of a row, without looking for the file.

    Args:
      field: of the row, for the message.
      name: the path.
      anywhere: it may be absolute, or lead out of the folder with "..".
      allow: the setting that allows it, for the message.

    Raises:
      RowError: it is a URL, or leads out of the folder.
    """
    if _URL.match(name):
        raise RowError(f"{field} {shown(name)} is a URL: save the picture and give its path")
    path = pathlib.PurePath(name)
    leads_out = path.is_absolute() or ".." in path.parts or _DRIVE.match(name)
    if leads_out and not anywhere:
        hint = f"; {allow} allows that" if allow else ""
        raise RowError(f"{field} {shown(name)} leads out of the folder{hint}")


def find_picture(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file of a row's path below `folder`.

    If there is no such file, one is taken whose name has the same letters in another Unicode form:
    some systems store "é" as one character, others as two. Symbolic links are followed.

    Raises:
      RowError: there is no such file, or it is a folder.
    """
    path = folder / name
    try:
        is_folder = path.is_dir()
        if not is_folder and not path.exists():
            path = _same_letters(folder, name)
            is_folder = path.is_dir()
    except RowError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise RowError(f"{shown(name[:LONGEST])} cannot be read: {reason}") from error
    if is_folder:
        raise RowError(f"{name} is a folder, not a picture")
    return path


def _same_letters(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file whose name differs only in its Unicode form; raises RowError."""
    missing = RowError(f"there is no file {name if name.isprintable() else shown(name)}")
    if "\\" in name:
        raise RowError(f"{missing}: separate folders with /, as in {name.replace(chr(92), '/')}")
    path = pathlib.Path(*pathlib.Path(folder, name).parts[:1])
    for part in pathlib.Path(folder, name).parts[1:]:
        if part == ".." or (path / part).exists():
            path /= part
            continue
        entries = _entries(path)
        found = entries.get(unicodedata.normalize("NFC", part))
        if found is None:
            for entry in entries.values():
                if _folded(entry) == _folded(part):
                    raise RowError(f"{missing}; there is {entry}: upper and lower case differ")
            raise missing
        path /= found
    return path


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _entries(folder: pathlib.Path) -> dict[str, str]:
    """Normalized name -> name, of the entries of a folder."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=64)
def _listed(folder: pathlib.Path, changed: int) -> dict[str, str]:
    return {unicodedata.normalize("NFC", name): name for name in sorted(os.listdir(folder))}
