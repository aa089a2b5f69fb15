"""Log in with a token, log out."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field

from onereward_jax.annotation.server.access import Access, address_of
from onereward_jax.annotation.server.annotators import SESSION_SECONDS, Session, log_in, log_out


class Token(BaseModel):
    """The body of a login."""

    token: str = Field(max_length=200)


def login_routes(access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api")

    @routes.post("/login", status_code=204)
    def login(body: Token, request: Request) -> Response:
        address = address_of(request)
        if access.logins.exceeded(address):
            raise HTTPException(429, "too many wrong links within a minute: wait a little")
        cookie = log_in(access.database, body.token, address)
        if cookie is None:
            access.logins.count(address)
            raise HTTPException(401, "this link is not valid, or no longer: ask for a new one")
        response = Response(status_code=204)
        response.set_cookie(
            access.cookie,
            cookie,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="strict",
            secure=access.secure,
        )
        return response

    @routes.post("/logout", status_code=204)
    def logout(session: Annotated[Session, Depends(access.writer)], request: Request) -> Response:
        log_out(access.database, session, address_of(request))
        response = Response(status_code=204)
        response.delete_cookie(
            access.cookie, httponly=True, samesite="strict", secure=access.secure
        )
        return response

    return routes
