"""The annotation server's FastAPI application.

Blocking routes run in threads: each opens a transaction of its own. Nothing is kept in memory that
a restart would lose.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from onereward_jax.annotation.server.access import Access
from onereward_jax.annotation.server.admin_routes import admin_routes
from onereward_jax.annotation.server.annotator_routes import annotator_routes
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.leases import LeaseLost, Leases
from onereward_jax.annotation.server.login_routes import login_routes
from onereward_jax.annotation.server.picture_routes import picture_routes
from onereward_jax.annotation.server.protection import Protection
from onereward_jax.annotation.server.question_files import QuestionFiles
from onereward_jax.annotation.web_settings import WebSettings

PAGE = Path(__file__).parents[1] / "page"
"""The page's files, with no folders below."""

PAGE_SUFFIXES = (".html", ".js", ".css", ".svg", ".png", ".woff2")

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
    _serve_page(app)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(LeaseLost, _lost)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Protection, settings=settings)
    return app


def _serve_page(app: FastAPI) -> None:
    """Serves exactly the files that the package's folder has at the start."""
    names = {path.name for path in PAGE.glob("*") if path.suffix in PAGE_SUFFIXES}

    @app.get("/{name}")
    def page(name: str) -> Response:
        file = ADDRESSES.get(name, name)
        if file not in names:
            raise HTTPException(404, "there is no such page")
        return FileResponse(PAGE / file, headers={"Cache-Control": "no-cache"})

    @app.get("/")
    def start() -> Response:
        return page("")


async def _told(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _not_understood(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return JSONResponse({"error": f"{field}: {first['msg']}"}, 400)


async def _lost(_: Request, error: LeaseLost) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its output says why"}, 500)
