"""The loop that answers: one batch at a time, in the one thread that uses the accelerator."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence

from absl import logging

from onereward_jax.edit_server.edit_work import EditWork, png
from onereward_jax.edit_server.job_queue import Job, JobQueue
from onereward_jax.edit_server.judge_work import Question
from onereward_jax.edit_server.request_bodies import Answer
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.pairwise_judge import Judge
from onereward_jax.inference.photograph_edit import edit_batch
from onereward_jax.judge import preference

PROGRAMS = 16
"""Sizes whose compiled programs are kept: each takes memory of the accelerator's host."""

LOOK_SECONDS = 0.2
"""How often an idle engine looks whether it is to stop."""

FETCH_SECONDS = 5.0
"""How long the engine waits, before it stops, for its last results to be fetched."""

BROKEN = "the server failed at this request; its output says why"


class _Unwanted(Exception):
    """Nobody waits for the batch any more."""


class Engine:
    """The models and the queue before them."""

    def __init__(self, queue: JobQueue, batch_size: int) -> None:
        """Without models, which come with `ready`."""
        self.queue = queue
        self.editor: Editor | None = None
        self.judge: Judge | None = None
        self._batch_size = batch_size
        self._sizes: set[object] = set()

    def ready(self, editor: Editor, judge: Judge | None) -> None:
        """Takes the models: from now on requests are accepted."""
        self.judge, self.editor = judge, editor

    def run(self, stop: threading.Event) -> None:
        """Answers until it is to stop; finishes the batch that runs, and lets it be fetched."""

        def close() -> None:
            stop.wait()
            self.queue.close()  # at once: those that wait can go elsewhere

        threading.Thread(target=close, name="stop", daemon=True).start()
        while not stop.is_set():
            if batch := self.queue.take(LOOK_SECONDS):
                self._answer(batch)
        end = time.monotonic() + FETCH_SECONDS
        while self.queue.unfetched() and time.monotonic() < end:
            time.sleep(0.05)

    def _answer(self, batch: list[Job]) -> None:
        work = [job.work for job in batch]
        try:
            if batch[0].kind == "edit":
                self._edit(batch, work)
            else:
                self._judge(batch, *work)
        except _Unwanted:
            pass
        except ValueError as error:  # such as values that are not finite
            self._fail(batch, str(error))
        except Exception:  # noqa: BLE001 the server goes on
            logging.exception("a request failed")
            self._fail(batch, BROKEN)

    def _fail(self, batch: Sequence[Job], sentence: str) -> None:
        for job in batch:
            self.queue.end(job, error=sentence)

    def _edit(self, batch: list[Job], work: list[EditWork]) -> None:
        """Edits; fills the batch up, so that each size has one program."""
        plan, ready = work[0].plan, [one.ready for one in work]
        filled = ready + [ready[-1]] * (self._batch_size - len(ready))
        pictures = edit_batch(self.editor, filled, plan, lambda _: self._advance(batch))
        for job, one, picture in zip(batch, ready, pictures):
            self.queue.end(job, result=png(picture, one.edit.photograph.profile))
        self._forget_programs(batch[0].key)

    def _judge(self, batch: list[Job], question: Question) -> None:
        """Asks in both orders, dimension by dimension: pairs of one size have one program."""
        (job,), answers = batch, []
        for dimension in question.dimensions:
            a_first, b_first = map(float, self.judge.score(
                [question.a, question.b],
                [question.b, question.a],
                task=question.task,
                dimension=dimension,
                prompt=question.prompt,
                masks=question.mask,
                sources=question.source,
            ))  # fmt: skip
            answers.append(
                Answer(
                    dimension=dimension.value,
                    a_first=a_first,
                    b_first=b_first,
                    a_is_better=preference(a_first, b_first),
                )
            )
            self._advance(batch)
        self.queue.end(job, result=answers)

    def _advance(self, batch: list[Job]) -> None:
        if not self.queue.advance(batch):
            raise _Unwanted

    def _forget_programs(self, key: tuple[object, ...]) -> None:
        """Drops all programs when there are too many; JAX's cache on disk has them still."""
        self._sizes |= set(key[-1])
        if len(self._sizes) > PROGRAMS:
            clear_programs(self.editor)
            self._sizes.clear()


def clear_programs(editor: Editor) -> None:
    """Forgets the compiled programs of an editor."""
    for field in dataclasses.fields(editor.steps):
        getattr(editor.steps, field.name).jitted.clear_cache()
