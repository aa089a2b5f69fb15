"""Lock of a work folder: one run at a time, across hosts.

The holder keeps `lock.json` in the folder and increments its `beat` every few seconds. A dead
holder is detected at once on the same host, and by a constant beat on another host. In a bucket,
the lock is an object updated with compare-and-swap.
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
"""Interval of heartbeats."""
SILENT_BEATS = 3
"""A holder on another host counts as dead after this many missed heartbeats."""


class WorkdirLocked(ValueError):
    """Another run uses the folder."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The holder of a lock.

    Attributes:
      host: host name.
      system: identifies host, boot and container, within which process ids are valid.
      pid: process id.
      started: start time of the process in ticks since boot; None if unknown.
      since: time of locking, human-readable.
      token: unique id of this lock.
      beat: counter that increases while the holder is alive.
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
    """A context manager that locks a work folder.

    Raises (when entered):
      WorkdirLocked: naming the holder's process and host.
    """

    def __init__(
        self, workdir: pathlib.Path | BucketFolder, *, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        """Does not lock yet.

        Args:
          workdir: the work folder; created if missing.
          beat_seconds: interval of heartbeats.
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
        if _holder(text) is None:  # it may be being written
            time.sleep(min(1.0, self._seconds))
            text = self._file.read()
        holder = _holder(text)
        if holder is not None and self._lives(holder):
            raise WorkdirLocked(
                f"{self._workdir} is in use by {holder}: wait for that run, stop it, or choose "
                "another --workdir"
            )
        # The holder may have released it meanwhile.
        if not self._file.create(_text(self._mine)):
            self._file.replace(text, _text(self._mine))
        # If two processes take over at the same time, the last write wins.
        time.sleep(min(0.5, self._seconds))
        holder = _holder(self._file.read())
        if holder is None or holder.token != self._mine.token:
            raise WorkdirLocked(f"{self._workdir} has just been taken by {holder}")

    def _lives(self, holder: Holder) -> bool:
        if holder.system == self._mine.system:
            # The same process id with another start time is another process.
            return _start_ticks(holder.pid) == holder.started and _runs(holder.pid)
        patience = SILENT_BEATS * self._seconds
        print(
            f"{self._workdir} was last used by {holder}: waiting {patience:.0f} s for a heartbeat",
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
                # This process was suspended for so long that it counted as dead.
                print(f"error: the work folder was taken over by {holder}", file=sys.stderr)
                os._exit(TRY_AGAIN)
            beat += 1
            try:
                self._file.replace(text, _text(dataclasses.replace(self._mine, beat=beat)))
            except OSError:
                continue  # the bucket is temporarily unreachable


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder))


def _holder(text: str) -> Holder | None:
    """Parses the holder; None if there is none or the text is invalid."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def system_name() -> str:
    """Identifies this host, boot and container."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start_ticks(pid: int) -> int | None:
    """Start time of a process, in ticks since boot; None if unknown or ended."""
    try:
        # The process name, in brackets, may contain any character.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Z: a zombie.
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
