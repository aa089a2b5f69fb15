"""Which file system a folder is on: detects mounted buckets and network folders."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

FUSE = "fuse"
"""Prefix of the types of user-space file systems."""


@dataclasses.dataclass(frozen=True)
class Mount:
    """A file system of this host.

    Attributes:
      source: what is mounted; for gcsfuse, the bucket.
      place: mount point.
      kind: type of the file system, e.g. ext4 or fuse.gcsfuse.
    """

    source: str
    place: Path
    kind: str

    @property
    def is_fuse(self) -> bool:
        """Whether it is a FUSE mount, as mounted buckets are."""
        return self.kind.startswith(FUSE)


def mount_of(path: Path, table: Path = Path("/proc/mounts")) -> Mount | None:
    """The file system of a path, which need not exist; None if the mount table cannot be read.

    Args:
      path: file or folder.
      table: the mount table, in the format of /proc/mounts.
    """
    path, found = Path(os.path.realpath(path)), None
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        source, place, kind = (_plain(field) for field in line.split(" ")[:3])
        # Of two mounts at the same place, the later one hides the earlier.
        if path.is_relative_to(place) and (
            found is None or len(Path(place).parts) >= len(found.place.parts)
        ):
            found = Mount(source, Path(place), kind)
    return found


def _plain(field: str) -> str:
    """Unescapes spaces in a field of the mount table."""
    return field.replace("\\040", " ")
