"""The files of a page, and errors in a sentence; of every server with a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

PAGE = Path(__file__).parents[1] / "page"
"""The annotators' page, with no folders below."""

PAGE_SUFFIXES = (".html", ".js", ".css", ".svg", ".png", ".woff2")


def page_files(folder: Path) -> list[Path]:
    """The files of a page."""
    return [path for path in folder.glob("*") if path.suffix in PAGE_SUFFIXES]


def serve_page(app: FastAPI, files: Iterable[Path], addresses: Mapping[str, str]) -> None:
    """Serves exactly these files, by their names.

    Args:
      app: the application, whose routes of one part are already there.
      files: the files.
      addresses: address -> name of its file; "" is the start page.
    """
    paths = {path.name: path for path in files}

    @app.get("/{name}", include_in_schema=False)
    def page(name: str) -> Response:
        path = paths.get(addresses.get(name, name))
        if path is None:
            raise HTTPException(404, "there is no such page")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    def start() -> Response:
        return page("")


def tell_errors(app: FastAPI) -> None:
    """Every error is {"error": a sentence}; of a wrong field, the sentence names it."""
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(Exception, _failed)


async def _told(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _not_understood(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return JSONResponse({"error": f"{field}: {first['msg']}"}, 400)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its output says why"}, 500)
