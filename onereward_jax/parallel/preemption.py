"""SIGTERM and Ctrl-C: a run stops where it loses nothing, on one process or on several.

The first signal is answered at the next stop point, between two units of work: what is done is kept
and the process ends with code 75, try again. Where there are no stop points (weights are loaded, a
step is compiled, one long file is written) and at the second signal the process ends at once: any
file is complete or not there, as after kill -9. A thread listens, since the main thread may be
inside XLA for minutes.
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
"""How often each of several processes looks whether another one was asked to stop."""
ONE_SECOND = 1.0
"""Signals so close to the first say the same: Slurm tells a job and its script, a terminal all."""

_ENDING, _LOOK = b"\0", b"\xff"
"""Beside the numbers of signals in the pipe: the thread's end; that there is something new."""


class StopPoints:
    """Where a loop may stop; see `stop_points`."""

    def __init__(self, stage: str, listener: _Listener | None, alone: bool) -> None:
        self._stage = stage
        self._listener = listener
        self._alone = alone

    def asked(self) -> bool:
        """Whether to stop here.

        From the first question on, the signal is answered at the next one.
        """
        if self._listener is None:
            return False
        return self._listener.asked(self._alone, waits=True)

    def stopped(self, where: str) -> Stopped:
        """To be raised when all is kept; `where` is such as "at 8 of 72 pictures"."""
        return Stopped(
            f"{self._stage}: stopped {where}, as asked; the same command goes on from there",
            alone=self._alone,
        )

    def if_asked(self, where: str) -> None:
        """Raises `Stopped` when the run was asked to stop; what is done must be on disk."""
        if self.asked():
            raise self.stopped(where)


@contextlib.contextmanager
def stop_points(stage: str, *, alone: bool = False) -> Iterator[StopPoints]:
    """To be put around a loop whose units are worth being finished.

    Args:
      stage: its name, for the sentence.
      alone: process 0 does this alone. Otherwise all processes ask equally often, and get the same
        answer at the same question.
    """
    listener = _Listener.current
    try:
        yield StopPoints(stage, listener, alone)
    finally:
        if listener is not None:
            listener.between_loops()


def stop_requested() -> bool:
    """Whether a process was asked to stop: all get the same answer, at the same call.

    With several processes all must call it equally often.
    """
    return _Listener.current is not None and _Listener.current.asked(alone=False, waits=False)


def now_at(stage: str) -> None:
    """Names what the process is at, for the sentence it ends with."""
    if _Listener.current is not None:
        _Listener.current.stage = stage


def before_leaving(call: Callable[[], None] | None) -> None:
    """`call` is made in another thread before the process ends at once; None: nothing is."""
    if _Listener.current is not None:
        _Listener.current.before_leaving = call


@contextlib.contextmanager
def hearing_signals() -> Iterator[None]:
    """Hears `SIGNALS` for as long as it lasts; of several processes all must be in it.

    Call it in the main thread, after `distributed.initialize`: jax has a handler too. A signal that
    the process was started to ignore, as with nohup, stays ignored.
    """
    listener = _Listener()
    heard = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    former = {one: signal.signal(one, listener.wish) for one in heard}
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
        if not thread.is_alive():  # it may wait for a process 0 that has ended
            listener.close()


class _Listener:
    """What this process knows of the wish that the run stops.

    Of several processes each publishes how often it has asked, once it has learnt of the wish, and
    from then on none passes a question before all have done so: the next question after the
    highest count is where all stop.
    """

    current: _Listener | None = None

    def __init__(self) -> None:
        self.stage = "the run"
        self.before_leaving: Callable[[], None] | None = None
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self._heard_at: float | None = None
        self._wished = False
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
        """The answer to a stop point; with `waits` the loop wants to get to the next one."""
        self._waits |= waits
        answer = self._wished if alone or not is_multiprocess() else self._agreed()
        self._stopping |= answer
        return answer

    def between_loops(self) -> None:
        """From here on there are no stop points; one that is being obeyed is."""
        self._waits = False
        if self._wished:
            os.write(self.write_end, _LOOK)

    def wish(self, *_: object) -> None:
        """The handler of the signals, in the main thread."""
        self._wished = True

    def listen(self) -> None:
        """Until `_ENDING` is written to the pipe."""
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
                    self._tell_and_learn()
            elif self._wished and not (self._waits or self._stopping):
                self._leave("as asked")

    def _hear(self) -> None:
        now = time.monotonic()
        if self._heard_at is not None:
            if now - self._heard_at > ONE_SECOND:
                self._leave("at once, as asked twice")
            return
        self._heard_at, self._wished = now, True
        if self._waits and not self._stopping:
            sentence = "asked to stop: after what is under way; asked again: at once"
            print(f"\n{self.stage}: {sentence}", file=sys.stderr, flush=True)

    def _agreed(self) -> bool:
        """The same answer for all processes at the same question."""
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

    def _tell_and_learn(self) -> None:
        """One look at what the other processes know."""
        store, place, index = key_value_store(), f"{KEYS}/stop", jax.process_index()
        if self._heard_at is not None:
            store.key_value_set(f"{place}/asked/{index}", "", allow_overwrite=True)
        if not self._wished and not store.key_value_dir_get(f"{place}/asked/"):
            return
        self._wished = True
        if not self._counting_over:
            with self._lock:
                self._counting_over, count = True, self._questions
            store.key_value_set(f"{place}/questions/{index}", str(count))
        # At once only where no process has a unit under way.
        waits = str(int(self._waits or self._stopping))
        store.key_value_set(f"{place}/waits/{index}", waits, allow_overwrite=True)
        if index == 0:
            found = [value for _, value in store.key_value_dir_get(f"{place}/waits/")]
            if found == ["0"] * jax.process_count():
                store.key_value_set(f"{place}/now/{index}", "", allow_overwrite=True)
        if store.key_value_dir_get(f"{place}/now/"):
            self._leave("as asked")

    def _leave(self, how: str) -> NoReturn:
        sentence = (
            f"{self.stage}: stopped {how}; the same command goes on from what it has finished"
        )
        if not is_multiprocess() or jax.process_index() == 0:
            print(f"\n{sentence}", file=sys.stderr, flush=True)
        if self.before_leaving is not None:
            self.before_leaving()
        exit_now(TRY_AGAIN, sentence, stopped=True)


def _forget_in_child() -> None:
    """A forked child shares the pipe: a signal to it must not be taken for one to its parent."""
    if _Listener.current is not None:
        _Listener.current = None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_forget_in_child)
