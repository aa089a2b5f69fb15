"""The annotation server's FastAPI application.

Blocking routes run in threads: each opens a transaction of its own. Nothing is kept in memory that
a restart would lose.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from onereward_jax.annotation.server.access import Access
from onereward_jax.annotation.server.admin_routes import admin_routes
from onereward_jax.annotation.server.annotator_routes import annotator_routes
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.leases import LeaseLost, Leases
from onereward_jax.annotation.server.login_routes import login_routes
from onereward_jax.annotation.server.page_files import PAGE, page_files, serve_page, tell_errors
from onereward_jax.annotation.server.picture_routes import picture_routes
from onereward_jax.annotation.server.protection import Protection
from onereward_jax.annotation.server.question_files import QuestionFiles
from onereward_jax.annotation.web_settings import WebSettings

ADDRESSES = {"": "index.html", "admin": "admin.html"}


def build_app(settings: WebSettings, database: AnswerDatabase) -> FastAPI:
    """The application.

    Args:
      settings: the settings.
      database: the answer database.

    Raises:
      ValueError, OSError: the questions, the gold answers or the guidelines cannot be read.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    files = QuestionFiles(settings, database)
    access, leases = Access.of(settings, database), Leases(settings, database)
    app.include_router(login_routes(access))
    app.include_router(annotator_routes(settings, database, access, files, leases))
    app.include_router(admin_routes(settings, database, access, files))
    app.include_router(picture_routes(settings, access, files))
    serve_page(app, page_files(PAGE), ADDRESSES)
    tell_errors(app)
    app.add_exception_handler(LeaseLost, _lost)
    app.add_middleware(Protection, place=settings)
    return app


async def _lost(_: Request, error: LeaseLost) -> Response:
    return JSONResponse({"error": str(error)}, 409)
