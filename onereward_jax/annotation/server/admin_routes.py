"""What admins see: the summary and the export."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import Response, StreamingResponse

from onereward_jax.annotation.server.access import Access
from onereward_jax.annotation.server.admin_summary import summary
from onereward_jax.annotation.server.annotators import Session
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.question_files import QuestionFiles
from onereward_jax.annotation.server.stored_answers import answer_lines
from onereward_jax.annotation.web_settings import WebSettings, set_title

KEPT_SECONDS = 2.0
"""How long a summary is shown before it is computed again, at least; a large one ten times as long
as that takes."""


def admin_routes(
    settings: WebSettings, database: AnswerDatabase, access: Access, files: QuestionFiles
) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/admin")
    Admin = Annotated[Session, Depends(access.admin)]
    lock, kept = threading.Lock(), {"until": 0.0, "summary": {}}

    @routes.get("/summary")
    def summarize(_: Admin) -> dict[str, Any]:
        with lock:
            started = time.monotonic()
            if started >= kept["until"]:
                files.refresh()
                kept["summary"] = summary(settings, database, files.gold())
                ended = time.monotonic()
                kept["until"] = ended + max(KEPT_SECONDS, 10.0 * (ended - started))
            return kept["summary"]

    @routes.get("/export")
    def export(set: str, _: Admin) -> Response:
        if set_title(set) is None:
            raise HTTPException(404, "there is no such set of questions")
        name = f"answers-{set}.jsonl"
        return StreamingResponse(
            _lines(database, set),
            media_type="application/jsonl",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return routes


def _lines(database: AnswerDatabase, set_name: str) -> Iterator[str]:
    for line in answer_lines(database, set_name):
        yield json.dumps(line, ensure_ascii=False) + "\n"
