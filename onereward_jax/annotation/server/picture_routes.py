"""Pictures of questions and guidelines, under names that are looked up, never opened."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import FileResponse, Response

from onereward_jax.annotation.server.access import Access
from onereward_jax.annotation.server.annotators import Session
from onereward_jax.annotation.server.question_files import QuestionFiles
from onereward_jax.annotation.server.shown_guidelines import guideline_pictures
from onereward_jax.annotation.web_settings import WebSettings

HEADERS = {
    "Cache-Control": "private, max-age=86400, immutable",
    # Not the file's: an editor's pictures are made together, so their times tell whose they are.
    "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT",
}


def picture_routes(settings: WebSettings, access: Access, files: QuestionFiles) -> APIRouter:
    """The routes."""
    routes, guiding = APIRouter(), guideline_pictures(settings.guidelines)

    @routes.get("/pictures/{name}")
    def picture(name: str, _: Annotated[Session, Depends(access.session)]) -> Response:
        path = files.picture(name)
        if path is None:
            raise HTTPException(404, "there is no such picture")
        return FileResponse(path, headers=HEADERS | {"ETag": f'"{name}"'})

    @routes.get("/guideline-pictures/{name}")
    def guideline_picture(name: str, _: Annotated[Session, Depends(access.session)]) -> Response:
        if name not in guiding:
            raise HTTPException(404, "there is no such picture")
        return FileResponse(guiding[name], headers={"Cache-Control": "private"})

    return routes
