"""Requests that wait for the models, and what became of them; thread-safe.

A bounded queue: beyond its length a request is refused, and told when to come again. Requests that
can share a compiled program and its settings, those of an equal key, are taken together.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
STATES = (WAITING, RUNNING, DONE, FAILED, CANCELLED)
ENDED = (DONE, FAILED, CANCELLED)

STOPPING = "the server is stopping: send the request again later"
FIRST_GUESS = 5.0
"""Seconds of a batch, before one was measured."""


class QueueFull(Exception):
    """No more requests are taken; `seconds`: when to come again."""

    def __init__(self, sentence: str, seconds: int) -> None:
        super().__init__(sentence)
        self.seconds = seconds


@dataclasses.dataclass(eq=False)
class Job:
    """A request on its way; fields change under the lock of its queue.

    Attributes:
      kind: "edit" or "judgement".
      key: what jobs of a batch have in common.
      work: what is to be done; None once it is.
      steps: calls of a model that it takes.
      notes: what the user should know about the pictures.
      kept: what is remembered about the request; its length is its bytes.
      number: identifies it; cannot be guessed.
      state: one of `STATES`.
      step: calls of a model so far.
      error: why it failed.
      result: a PNG file of an edit, the answers of a judgement.
      fetched: whether somebody has got the result.
      created, started, ended: on the clock of `time.monotonic`.
    """

    kind: str
    key: Any
    work: Any
    steps: int
    notes: tuple[str, ...] = ()
    kept: Any = None
    number: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))
    state: str = WAITING
    step: int = 0
    error: str = ""
    result: Any = None
    fetched: bool = False
    created: float = dataclasses.field(default_factory=time.monotonic)
    started: float | None = None
    ended: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing about it will change."""
        return self.state in ENDED


@dataclasses.dataclass(frozen=True)
class Progress:
    """A job at one moment; `place`: how many requests are before it, None once it has begun."""

    state: str
    place: int | None
    step: int
    steps: int
    seconds: float


class JobQueue:
    """The requests."""

    def __init__(self, longest: int, batch_size: int, kept: int, kept_bytes: int) -> None:
        """An empty queue.

        Args:
          longest: requests that may wait.
          batch_size: jobs of a batch at most.
          kept: ended jobs that are remembered, and
          kept_bytes: bytes of their files; the last one stays even if it is larger.
        """
        self._longest, self._batch_size = longest, batch_size
        self._kept, self._kept_bytes = kept, kept_bytes
        self._changed = threading.Condition()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: list[Job] = []
        self._seconds = FIRST_GUESS
        self._stopping = False

    def submit(self, job: Job) -> None:
        """Takes a job. Raises QueueFull if too many wait, or if the queue is closed."""
        with self._changed:
            self._check_room()
            self._jobs[job.number] = job
            self._waiting.append(job)
            self._changed.notify_all()

    def check_room(self) -> None:
        """Raises QueueFull if a job would not be taken now."""
        with self._changed:
            self._check_room()

    def take(self, timeout: float) -> list[Job]:
        """The oldest job with those of its key, as running; [] if none comes in time (seconds)."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout)
            if not self._waiting:
                return []
            first = self._waiting[0]
            batch = [one for one in self._waiting if one.key == first.key][: self._batch_size]
            for job in batch:
                self._waiting.remove(job)
                job.state, job.started = RUNNING, time.monotonic()
            return batch

    def advance(self, batch: list[Job]) -> bool:
        """Counts a step of a batch; whether anybody still waits for it."""
        with self._changed:
            for job in batch:
                job.step = min(job.step + 1, job.steps)
            return any(job.state == RUNNING for job in batch)

    def end(self, job: Job, *, result: Any = None, error: str = "") -> None:
        """A running job has its result or its error; a cancelled one stays cancelled."""
        with self._changed:
            if job.state == RUNNING:
                self._end(job, FAILED if error else DONE, result, error)
                self._seconds = job.ended - job.started

    def find(self, number: str) -> Job | None:
        """The job of this number, if it is remembered."""
        with self._changed:
            return self._jobs.get(number)

    def progress(self, job: Job) -> Progress:
        """A job at this moment."""
        with self._changed:
            place = self._waiting.index(job) if job.state == WAITING else None
            seconds = (job.ended or time.monotonic()) - (job.started or job.created)
            return Progress(job.state, place, job.step, job.steps, round(seconds, 1))

    def cancel(self, job: Job) -> None:
        """Nobody wants it any more: it does not begin, or ends soon; an ended one is forgotten."""
        with self._changed:
            if job.has_ended:
                self._jobs.pop(job.number, None)
                return
            if job.state == WAITING:
                self._waiting.remove(job)
            self._end(job, CANCELLED, None, "")

    def close(self) -> None:
        """Takes no more jobs; those that wait have failed."""
        with self._changed:
            self._stopping = True
            for job in self._waiting:
                self._end(job, FAILED, None, STOPPING)
            self._waiting.clear()
            self._changed.notify_all()

    def unfetched(self) -> bool:
        """Whether a result waits to be fetched."""
        with self._changed:
            return any(job.state == DONE and not job.fetched for job in self._jobs.values())

    @property
    def is_closed(self) -> bool:
        """Whether no more jobs are taken."""
        with self._changed:
            return self._stopping

    @property
    def length(self) -> int:
        """Number of jobs that wait."""
        with self._changed:
            return len(self._waiting)

    def _check_room(self) -> None:
        if self._stopping:
            raise QueueFull(STOPPING, 30)
        if len(self._waiting) >= self._longest:
            seconds = self._seconds * len(self._waiting) / self._batch_size
            raise QueueFull(
                f"{len(self._waiting)} requests wait already: try again later",
                max(1, min(round(seconds), 600)),
            )

    def _end(self, job: Job, state: str, result: Any, error: str) -> None:
        job.state, job.result, job.error = state, result, error
        job.ended, job.work = time.monotonic(), None
        if state != DONE:
            job.kept = None
        ended = [one for one in self._jobs.values() if one.has_ended]
        size = sum(_bytes(one) for one in ended)
        for old in ended[:-1]:
            if len(ended) <= self._kept and size <= self._kept_bytes:
                break
            ended, size = ended[1:], size - _bytes(old)
            del self._jobs[old.number]


def _bytes(job: Job) -> int:
    return len(job.result or ()) + len(job.kept or ())
