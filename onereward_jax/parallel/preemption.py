"""SIGTERM and Ctrl-C: stop without losing work, with one process or many.

After the first signal the run stops at the next stop point, between two units of work: finished
work is kept and the process exits with code 75 (try again). Where there are no stop points (while
weights load, a step compiles, one long file is written), and after a second signal, the process
exits at once: every file is complete or absent, as after kill -9. A thread listens for signals,
because the main thread may be inside XLA for minutes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from onereward_jax.common.user_errors import TRY_AGAIN, Stopped
from onereward_jax.parallel.distributed import KEYS, exit_now, is_multiprocess, raise_peer_failure
from onereward_jax.parallel.jax_internals import key_value_store

SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL_SECONDS = 0.5
"""In a multi-process run, how often each process checks whether another received a signal."""
ONE_SECOND = 1.0
"""Signals this close to the first count as one: Slurm signals a job and its script, a terminal all
processes."""

_ENDING, _LOOK = b"\0", b"\xff"
"""Bytes in the pipe besides signal numbers: end the thread; check the state again."""


class StopPoints:
    """Where a loop may stop; see `stop_points`."""

    def __init__(self, stage: str, listener: _Listener | None, alone: bool) -> None:
        self._stage = stage
        self._listener = listener
        self._alone = alone

    def asked(self) -> bool:
        """Whether to stop here.

        After the first call, a signal waits for the next call instead of ending the process.
        """
        if self._listener is None:
            return False
        return self._listener.asked(self._alone, waits=True)

    def stopped(self, where: str) -> Stopped:
        """The exception to raise once all work is saved; `where` is e.g. "at 8 of 72 images"."""
        return Stopped(
            f"{self._stage}: stopped {where}, as requested; run the same command to resume",
            alone=self._alone,
        )

    def if_asked(self, where: str) -> None:
        """Raises `Stopped` if the run was asked to stop; finished work must be on disk."""
        if self.asked():
            raise self.stopped(where)


@contextlib.contextmanager
def stop_points(stage: str, *, alone: bool = False) -> Iterator[StopPoints]:
    """Context of a loop that finishes the current unit of work before it stops.

    Args:
      stage: name of the stage, for the message.
      alone: only process 0 runs the loop. Otherwise all processes must call `asked` the same number
        of times; the n-th call returns the same on all of them.
    """
    listener = _Listener.current
    try:
        yield StopPoints(stage, listener, alone)
    finally:
        if listener is not None:
            listener.between_loops()


def stop_requested() -> bool:
    """Whether the run was asked to stop; the n-th call returns the same on all processes.

    All processes must call it the same number of times.
    """
    return _Listener.current is not None and _Listener.current.asked(alone=False, waits=False)


def now_at(stage: str) -> None:
    """Sets the name of the current stage, for the exit message."""
    if _Listener.current is not None:
        _Listener.current.stage = stage


def before_leaving(call: Callable[[], None] | None) -> None:
    """Sets a function to call, in the signal thread, before an immediate exit; None: none."""
    if _Listener.current is not None:
        _Listener.current.before_leaving = call


@contextlib.contextmanager
def hearing_signals() -> Iterator[None]:
    """Handles `SIGNALS` while the context is open; all processes must enter it.

    Enter it in the main thread, after `distributed.initialize`, which installs a handler too.
    Signals ignored at process start (nohup) stay ignored.
    """
    listener = _Listener()
    heard = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    former = {one: signal.signal(one, listener.handle) for one in heard}
    former_fd = signal.set_wakeup_fd(listener.write_end, warn_on_full_buffer=False)
    _Listener.current = listener
    thread = threading.Thread(target=listener.listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _Listener.current = None
        signal.set_wakeup_fd(former_fd)
        for one, handler in former.items():
            signal.signal(one, handler)
        os.write(listener.write_end, _ENDING)
        thread.join(ONE_SECOND)
        if not thread.is_alive():  # it may be waiting for a dead process 0
            listener.close()


class _Listener:
    """Listens for signals, and agrees with the other processes on where to stop.

    Once a process learns of a signal, on any process, it publishes how many times it has called
    `asked`, and its next call blocks until all have published. All stop at the call after the
    highest count.
    """

    current: _Listener | None = None

    def __init__(self) -> None:
        self.stage = "the run"
        self.before_leaving: Callable[[], None] | None = None
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self._heard_at: float | None = None
        self._requested = False
        self._lock = threading.Lock()
        self._questions = 0
        self._counting_over = False
        self._stop_at: int | None = None
        self._waits = False
        self._stopping = False

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self._read_end)
        os.close(self.write_end)

    def asked(self, alone: bool, *, waits: bool) -> bool:
        """Whether to stop; with `waits`, a signal waits for the next stop point of the loop."""
        self._waits |= waits
        answer = self._requested if alone or not is_multiprocess() else self._agreed()
        self._stopping |= answer
        return answer

    def between_loops(self) -> None:
        """Ends the stop points of a loop: a signal now exits at once."""
        self._waits = False
        if self._requested:
            os.write(self.write_end, _LOOK)

    def handle(self, *_: object) -> None:
        """The signal handler, in the main thread."""
        self._requested = True

    def listen(self) -> None:
        """The thread's loop, until `_ENDING` is written to the pipe."""
        while True:
            waiting = POLL_SECONDS if is_multiprocess() else None
            came = b""
            if select.select([self._read_end], [], [], waiting)[0]:
                came = os.read(self._read_end, 64)
            if _ENDING in came:
                return
            if any(one in SIGNALS for one in came):
                self._hear()
            if is_multiprocess():
                with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 has ended
                    self._exchange_state()
            elif self._requested and not (self._waits or self._stopping):
                self._leave("as requested")

    def _hear(self) -> None:
        now = time.monotonic()
        if self._heard_at is not None:
            if now - self._heard_at > ONE_SECOND:
                self._leave("at once after a second signal")
            return
        self._heard_at, self._requested = now, True
        if self._waits and not self._stopping:
            sentence = "stopping after the current unit of work; signal again to stop at once"
            print(f"\n{self.stage}: {sentence}", file=sys.stderr, flush=True)

    def _agreed(self) -> bool:
        """Whether to stop, the same on all processes for the n-th call."""
        with self._lock:
            self._questions += 1
            if not self._counting_over:
                return False
        store, place, pause = key_value_store(), f"{KEYS}/stop/questions/", 0.01
        while self._stop_at is None:
            counts = [int(count) for _, count in store.key_value_dir_get(place)]
            if len(counts) == jax.process_count():
                self._stop_at = max(counts) + 1
                break
            raise_peer_failure(store)
            time.sleep(pause)
            pause = min(2.0 * pause, POLL_SECONDS)
        return self._questions >= self._stop_at

    def _exchange_state(self) -> None:
        """Publishes this process's state and reads that of the others, once."""
        store, place, index = key_value_store(), f"{KEYS}/stop", jax.process_index()
        if self._heard_at is not None:
            store.key_value_set(f"{place}/asked/{index}", "", allow_overwrite=True)
        if not self._requested and not store.key_value_dir_get(f"{place}/asked/"):
            return
        self._requested = True
        if not self._counting_over:
            with self._lock:
                self._counting_over, count = True, self._questions
            store.key_value_set(f"{place}/questions/{index}", str(count))
        # Exit at once only if no process has a unit under way.
        waits = str(int(self._waits or self._stopping))
        store.key_value_set(f"{place}/waits/{index}", waits, allow_overwrite=True)
        if index == 0:
            found = [value for _, value in store.key_value_dir_get(f"{place}/waits/")]
            if found == ["0"] * jax.process_count():
                store.key_value_set(f"{place}/now/{index}", "", allow_overwrite=True)
        if store.key_value_dir_get(f"{place}/now/"):
            self._leave("as requested")

    def _leave(self, how: str) -> NoReturn:
        sentence = f"{self.stage}: stopped {how}; run the same command to resume"
        if not is_multiprocess() or jax.process_index() == 0:
            print(f"\n{sentence}", file=sys.stderr, flush=True)
        if self.before_leaving is not None:
            self.before_leaving()
        exit_now(TRY_AGAIN, sentence, stopped=True)


def _forget_in_child() -> None:
    """A forked child shares the pipe: its signals must not reach the parent's listener."""
    if _Listener.current is not None:
        _Listener.current = None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_forget_in_child)
