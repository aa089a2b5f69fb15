"""Live events of the files below a folder, from Linux's inotify."""

from __future__ import annotations

import ctypes
import os
import pathlib
import select
import struct

_CREATE, _WRITTEN, _MODIFY, _GONE, _MOVED_TO = 0x100, 0x8, 0x2, 0x200, 0x80
_MASK = _CREATE | _WRITTEN | _MODIFY | _GONE | _MOVED_TO
_FOLDER = 0x40000000
_HEAD = struct.Struct("iIII")
_NAMES = {
    _CREATE: "made", _WRITTEN: "closed", _MODIFY: "written", _GONE: "removed", _MOVED_TO: "renamed",
}  # fmt: skip


class FileEvents:
    """A context manager; also watches folders that are created later."""

    def __init__(self, root: pathlib.Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_NONBLOCK)
        self._folders: dict[int, pathlib.Path] = {}
        self._root = root
        self._watch(root)

    def __enter__(self) -> FileEvents:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def wait(self, seconds: float) -> list[tuple[pathlib.Path, str]]:
        """New events as (path below the root, kind); waits at most `seconds` for the first."""
        if not select.select([self._file], [], [], max(0.0, seconds))[0]:
            return []
        found, data = [], os.read(self._file, 1 << 16)
        while data:
            watch, mask, _, length = _HEAD.unpack_from(data)
            name = data[_HEAD.size : _HEAD.size + length].split(b"\0")[0].decode()
            data = data[_HEAD.size + length :]
            folder = self._folders.get(watch)
            kinds = [kind for bit, kind in _NAMES.items() if mask & bit]
            if folder is None or not name or not kinds:
                continue
            path = folder / name
            if mask & _FOLDER and mask & (_CREATE | _MOVED_TO):
                self._watch(path)
            found.append((path.relative_to(self._root), kinds[0]))
        return found

    def _watch(self, folder: pathlib.Path) -> None:
        watch = self._libc.inotify_add_watch(self._file, os.fsencode(folder), _MASK)
        if watch < 0:  # already deleted
            return
        self._folders[watch] = folder
        try:
            inside = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for entry in inside:
            self._watch(pathlib.Path(entry.path))
