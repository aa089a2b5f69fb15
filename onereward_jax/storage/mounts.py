"""Mounted buckets and other network folders: what the kernel says of the place of a folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

FUSE = "fuse"
"""Kinds of file systems begin with it that a program, not the kernel, serves."""


@dataclasses.dataclass(frozen=True)
class Mount:
    """A file system of this host.

    Attributes:
      source: what is mounted; of gcsfuse, the bucket.
      place: where.
      kind: of file system, such as ext4 or fuse.gcsfuse.
    """

    source: str
    place: Path
    kind: str

    @property
    def is_fuse(self) -> bool:
        """Whether a program serves it, as with mounted buckets."""
        return self.kind.startswith(FUSE)


def mount_of(path: Path, table: Path = Path("/proc/mounts")) -> Mount | None:
    """The file system that a path lies in, be it there or not; None where the kernel tells none.

    Args:
      path: of a file or folder.
      table: of mounts, as Linux keeps it.
    """
    path, found = Path(os.path.realpath(path)), None
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        source, place, kind = (_plain(field) for field in line.split(" ")[:3])
        # Of two with the same place the later one hides the former.
        if path.is_relative_to(place) and (
            found is None or len(Path(place).parts) >= len(found.place.parts)
        ):
            found = Mount(source, Path(place), kind)
    return found


def _plain(field: str) -> str:
    """A field without the kernel's escape of spaces."""
    return field.replace("\\040", " ")
