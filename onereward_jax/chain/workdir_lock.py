"""One run at a time in a work folder, from whatever hosts it is started.

The run that holds a folder keeps `lock.json` in it and moves its `beat` on every few seconds. On
the same host a dead holder is known at once, on another by a beat that stands still. In a bucket
the file is an object that is written only while it is the one that was read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import socket
import sys
import threading
import time
import types
import uuid

from onereward_jax.chain.lock_backends import BucketLockFile, LocalLockFile
from onereward_jax.common.user_errors import TRY_AGAIN
from onereward_jax.parallel.preemption import before_leaving
from onereward_jax.storage import BucketFolder

BEAT_SECONDS = 10.0
"""Between two signs of life."""
SILENT_BEATS = 3
"""A holder on another host is taken for dead after so many beats that did not come."""


class WorkdirLocked(ValueError):
    """Another run is at work in the folder."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a work folder.

    Attributes:
      host: its name.
      system: tells apart hosts, restarts of a host, and containers: process numbers mean something
        within one system only.
      pid: process number.
      started: when the process started, in the system's ticks; None where that is not known.
      since: when it took the folder, for people.
      token: of this very lock.
      beat: grows while the holder lives.
    """

    host: str
    system: str
    pid: int
    started: int | None
    since: str
    token: str
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class WorkdirLock:
    """A context manager that holds a work folder.

    Raises (when entered):
      WorkdirLocked: naming the process and host that hold it.
    """

    def __init__(
        self, workdir: pathlib.Path | BucketFolder, *, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        """Touches nothing yet.

        Args:
          workdir: of the run; made when it is missing.
          beat_seconds: between two signs of life.
        """
        in_bucket = isinstance(workdir, BucketFolder)
        self._workdir = workdir
        self._file = BucketLockFile(workdir) if in_bucket else LocalLockFile(workdir)
        self._seconds = beat_seconds
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._mine = Holder(
            host=socket.gethostname(),
            system=system_name(),
            pid=os.getpid(),
            started=_start_ticks(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            token=uuid.uuid4().hex,
        )

    def __enter__(self) -> WorkdirLock:
        if not self._file.create(_text(self._mine)):
            self._take_over()
        self._beating.start()
        before_leaving(self._release)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        before_leaving(None)
        self._release()

    def _release(self) -> None:
        self._ended.set()
        self._beating.join()
        holder = _holder(self._file.read())
        if holder is not None and holder.token == self._mine.token:
            self._file.remove()

    def _take_over(self) -> None:
        text = self._file.read()
        if _holder(text) is None:  # perhaps it is being written at this moment
            time.sleep(min(1.0, self._seconds))
            text = self._file.read()
        holder = _holder(text)
        if holder is not None and self._lives(holder):
            raise WorkdirLocked(
                f"{self._workdir} is in use by {holder}: wait for that run, stop it, or choose "
                "another --workdir"
            )
        # It may have been given back while its holder was watched.
        if not self._file.create(_text(self._mine)):
            self._file.replace(text, _text(self._mine))
        # Of two that take over at the same time the last one has it.
        time.sleep(min(0.5, self._seconds))
        holder = _holder(self._file.read())
        if holder is None or holder.token != self._mine.token:
            raise WorkdirLocked(f"{self._workdir} has just been taken by {holder}")

    def _lives(self, holder: Holder) -> bool:
        if holder.system == self._mine.system:
            # A process number that has come again belongs to another process.
            return _start_ticks(holder.pid) == holder.started and _runs(holder.pid)
        patience = SILENT_BEATS * self._seconds
        print(
            f"{self._workdir} was last used by {holder}: looking for a sign of life for "
            f"{patience:.0f} s",
            flush=True,
        )
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(self._seconds / 4)
            now = _holder(self._file.read())
            if now is None:
                return False
            if (now.token, now.beat) != (holder.token, holder.beat):
                return True
        return False

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._seconds):
            text = self._file.read()
            holder = _holder(text)
            if holder is not None and holder.token != self._mine.token:
                # This process stood still for so long that it was taken for dead.
                print(f"error: the work folder was taken over by {holder}", file=sys.stderr)
                os._exit(TRY_AGAIN)
            beat += 1
            try:
                self._file.replace(text, _text(dataclasses.replace(self._mine, beat=beat)))
            except OSError:
                continue  # a bucket that is out of reach for a moment


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder))


def _holder(text: str) -> Holder | None:
    """Who holds the folder; None when nobody does, or when the text is none of ours."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def system_name() -> str:
    """Tells this host, since its start, and this container from all others."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since the system did; None: unknown, or it has ended."""
    try:
        # The name, in brackets, may hold anything.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Z: it has ended, and its parent has not asked yet.
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
