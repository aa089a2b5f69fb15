"""Routes of edits and questions to the judge: send, follow, fetch, cancel."""

import argparse
import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import StreamingResponse

from onereward_jax.edit_server.edit_work import edit_job
from onereward_jax.edit_server.engine import Engine
from onereward_jax.edit_server.job_queue import DONE, Job, QueueFull
from onereward_jax.edit_server.judge_work import judge_job
from onereward_jax.edit_server.request_bodies import EditBody, JobState, JudgementBody, Wrong
from onereward_jax.edit_server.serve_settings import Limits

READERS = 2
"""Requests whose pictures are decoded at a time: memory is bounded, and the engine has a core."""

EVENT_SECONDS = 0.1
"""How often a stream of events looks for something new."""

SILENCE_SECONDS = 15.0
"""How long a stream may say nothing, lest a proxy ends it."""

LOADING_SECONDS = 10
"""When to come again while the models are loaded."""

REFUSALS = {
    400: {"model": Wrong, "description": "a field is wrong"},
    413: {"model": Wrong, "description": "the body is too large"},
    503: {
        "model": Wrong,
        "description": "the queue is full, or the server loads or stops; Retry-After has seconds",
    },
}
UNKNOWN = {404: {"model": Wrong, "description": "there is no such request, or no longer"}}


def job_routes(engine: Engine, options: argparse.Namespace, limits: Limits) -> APIRouter:
    """The routes.

    Args:
      engine: the models and their queue.
      options: of the server, see `edit_work.edit_job`.
      limits: what requests may ask for.
    """
    routes, queue = APIRouter(prefix="/api"), engine.queue
    reading = threading.Semaphore(READERS)

    def submitted(make: Callable[[], Job], response: Response, where: str) -> JobState:
        """Makes a job and queues it; a full queue does not decode pictures."""
        if engine.editor is None:
            raise _away("the models are being loaded: try again later", LOADING_SECONDS)
        try:
            queue.check_room()
            with reading:
                job = make()
            queue.submit(job)
        except QueueFull as full:
            raise _away(str(full), full.seconds) from None
        except (ValueError, OSError) as error:
            raise HTTPException(400, str(error)) from error
        response.headers["Location"] = f"/api/{where}/{job.number}"
        return state_of(job)

    def state_of(job: Job) -> JobState:
        now = queue.progress(job)
        is_edit = job.kind == "edit"
        done = now.state == DONE
        return JobState(
            id=job.number,
            kind=job.kind,
            state=now.state,
            place=now.place,
            step=now.step,
            steps=now.steps,
            seconds=now.seconds,
            notes=list(job.notes),
            error=job.error or None,
            result=f"/api/edits/{job.number}/result" if is_edit and done else None,
            answers=None if is_edit or not done else job.result,
        )

    def seen(job: Job) -> JobState:
        """The state for a client; a judgement is fetched with it."""
        state = state_of(job)
        job.fetched |= job.kind == "judgement" and job.has_ended
        return state

    def found(number: str, kind: str) -> Job:
        job = queue.find(number)
        if job is None or job.kind != kind:
            raise HTTPException(
                404, f"there is no such {kind}, or no longer: the oldest are forgotten"
            )
        return job

    def an_edit(number: str) -> Job:
        return found(number, "edit")

    def a_judgement(number: str) -> Job:
        return found(number, "judgement")

    @routes.post("/edits", status_code=202, responses=REFUSALS, summary="Edit a picture")
    def send_edit(body: EditBody, response: Response) -> JobState:
        return submitted(lambda: edit_job(body, options, engine.editor, limits), response, "edits")

    @routes.get("/edits/{number}", responses=UNKNOWN, summary="How far an edit is")
    def edit_state(job: Annotated[Job, Depends(an_edit)]) -> JobState:
        return seen(job)

    @routes.get(
        "/edits/{number}/events",
        responses={**UNKNOWN, **_EVENTS},
        response_class=StreamingResponse,
        summary="Follow an edit: its state whenever it changes, as server-sent events",
    )
    def edit_events(job: Annotated[Job, Depends(an_edit)]) -> StreamingResponse:
        return _stream(lambda: seen(job), job)

    @routes.get(
        "/edits/{number}/result",
        responses={**UNKNOWN, 409: {"model": Wrong, "description": "it is not done"}, **_PNG},
        response_class=Response,
        summary="The edited picture",
    )
    def edit_result(job: Annotated[Job, Depends(an_edit)]) -> Response:
        if queue.progress(job).state != DONE:
            raise HTTPException(409, job.error or f"the edit is {job.state}: it has no result")
        job.fetched = True
        return Response(job.result, media_type="image/png", headers=_PRIVATE)

    @routes.delete("/edits/{number}", status_code=204, responses=UNKNOWN,
                   summary="Cancel an edit, or forget its result")  # fmt: skip
    def cancel_edit(job: Annotated[Job, Depends(an_edit)]) -> Response:
        queue.cancel(job)
        return Response(status_code=204)

    @routes.post("/judgements", status_code=202, responses=REFUSALS,
                 summary="Ask the judge which of two edits is better")  # fmt: skip
    def ask(body: JudgementBody, response: Response) -> JobState:
        def make() -> Job:
            if engine.judge is None:
                raise ValueError("this server has no judge: start it with --judge")
            view = engine.judge.view
            return judge_job(body, queue.find, engine.editor.defaults, limits, view)

        return submitted(make, response, "judgements")

    @routes.get("/judgements/{number}", responses=UNKNOWN, summary="The answers of the judge")
    def judgement(job: Annotated[Job, Depends(a_judgement)]) -> JobState:
        return seen(job)

    @routes.get(
        "/judgements/{number}/events",
        responses={**UNKNOWN, **_EVENTS},
        response_class=StreamingResponse,
        summary="Follow a question: its state whenever it changes, as server-sent events",
    )
    def judgement_events(job: Annotated[Job, Depends(a_judgement)]) -> StreamingResponse:
        return _stream(lambda: seen(job), job)

    return routes


_PRIVATE = {"Cache-Control": "private, max-age=86400, immutable"}
_EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "events with states"}}
_PNG = {200: {"content": {"image/png": {}}, "description": "a PNG file"}}


def _stream(state: Callable[[], JobState], job: Job) -> StreamingResponse:
    """States whenever something but the time changes, the last one with the result."""

    async def events() -> AsyncIterator[str]:
        before, told = None, time.monotonic()
        while True:
            ended = job.has_ended
            now = state()
            if (key := now.model_copy(update={"seconds": 0.0})) != before:
                before, told = key, time.monotonic()
                yield f"data: {now.model_dump_json()}\n\n"
            elif time.monotonic() - told > SILENCE_SECONDS:
                told = time.monotonic()
                yield ": still here\n\n"
            if ended:
                return
            await asyncio.sleep(EVENT_SECONDS)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _away(sentence: str, seconds: int) -> HTTPException:
    return HTTPException(503, sentence, headers={"Retry-After": str(seconds)})
