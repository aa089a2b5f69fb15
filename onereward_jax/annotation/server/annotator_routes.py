"""What annotators do: begin, answer, undo, go back."""

import math
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from onereward_jax.annotation.questions import USABLE
from onereward_jax.annotation.server.access import Access, address_of
from onereward_jax.annotation.server.annotators import Session
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.judgements import Judgements, Said
from onereward_jax.annotation.server.leases import Leases
from onereward_jax.annotation.server.question_files import Item, QuestionFiles
from onereward_jax.annotation.server.shown_guidelines import guidelines
from onereward_jax.annotation.server.tables import LEASES, SERVED
from onereward_jax.annotation.web_settings import WebSettings, set_title, sets_in

KINDS = {1: "usable", 2: "better"}
"""Number of candidates -> kind of a question; more: "best_worst"."""


KEY = {"min_length": 8, "max_length": 100, "pattern": "^[ -~]*$"}
"""Of the random id of a save: printable ASCII, which every database can store."""


class After(BaseModel):
    """The body of a request for the next question."""

    after: str | None = Field(None, max_length=100, pattern="^[ -~]*$")


class Given(BaseModel):
    """The body of an answer: shown positions, the time spent, and a random id of this save."""

    best: int | None = Field(None, ge=0, le=1000, strict=True)
    worst: int | None = Field(None, ge=0, le=1000, strict=True)
    usable: bool | None = Field(None, strict=True)
    seconds: float = Field(ge=0.0, le=86400.0, allow_inf_nan=False)
    key: str = Field(**KEY)


def annotator_routes(
    settings: WebSettings,
    database: AnswerDatabase,
    access: Access,
    files: QuestionFiles,
    leases: Leases,
) -> APIRouter:
    """The routes."""
    routes, judgements = APIRouter(prefix="/api"), Judgements(database, leases)
    guides = guidelines(settings.guidelines)
    Reader = Annotated[Session, Depends(access.session)]
    Writer = Annotated[Session, Depends(access.writer)]

    def item_named(name: str) -> Item:
        item = files.items().get(name)
        if item is None:
            raise HTTPException(404, "there is no such question any more")
        return item

    def shown(item: Item, session: Session) -> dict[str, Any]:
        question, me = item.question, session.annotator.number
        mine = (LEASES.c.item == item.name) & (LEASES.c.annotator == me)
        order = leases.order(item, me)
        if order is None:
            raise HTTPException(403, "this question was not given to you")
        with database.reading() as connection:
            lease = connection.execute(sa.select(LEASES).where(mine)).one()

        def picture(path: str) -> str:
            return f"/pictures/{files.picture_name(item.set, path)}"

        number, _, total = _progress(settings, database, item.set, me, lease.begun_at)
        return {
            "item": item.name,
            "set": item.set,
            "kind": KINDS.get(len(order), "best_worst"),
            "task": question.task.title,
            "prompt": question.prompt,
            "image": picture(question.image),
            "mask": picture(question.mask),
            "pictures": [picture(question.candidates[candidate]) for candidate in order],
            "dimensions": question.dimensions,
            "answers": judgements.of_item(item, me, order),
            "lease_expires": math.floor(lease.expires_at),
            "number": number,
            "total": total,
        }

    @routes.get("/session")
    def session(session: Reader) -> dict[str, Any]:
        files.refresh()
        me = session.annotator
        sets = []
        for name, title in sets_in(settings.workdir).items():
            _, finished, total = _progress(settings, database, name, me.number)
            left = leases.left(name, me.number)
            counts = {"total": total, "answered_by_me": finished, "left_for_me": left}
            sets.append({"set": name, "title": title, **counts})
        return {
            "name": me.name,
            "admin": me.admin,
            "csrf": session.csrf,
            "sets": sets,
            "dimensions": guides,
        }

    @routes.post("/sets/{set_name}/next")
    def next_item(set_name: str, body: After, session: Writer) -> dict[str, Any]:
        if set_title(set_name) is None:
            raise HTTPException(404, "there is no such set of questions")
        files.refresh()
        who = session.annotator
        name = leases.next(set_name, who.number, who.name, body.after)
        return {"done": True} if name is None else shown(item_named(name), session)

    @routes.get("/items/{name}")
    def item(name: str, session: Reader) -> dict[str, Any]:
        return shown(item_named(name), session)

    @routes.post("/items/{name}/lease")
    def lease(name: str, session: Writer) -> dict[str, Any]:
        who = session.annotator
        end = leases.renew(item_named(name).name, who.number, who.name)
        return {"lease_expires": math.floor(end)}

    @routes.put("/items/{name}/answers/{dimension}")
    def answer(
        name: str, dimension: str, body: Given, session: Writer, request: Request
    ) -> dict[str, Any]:
        chosen = item_named(name)
        wanted = {"usable"} if dimension == USABLE else {"best", "worst"}
        if not wanted <= body.model_fields_set:
            raise HTTPException(400, f"{' and '.join(sorted(wanted))} must be given")
        try:
            answered = judgements.save(
                *(chosen, dimension, session.annotator),
                Said(body.best, body.worst, body.usable),
                seconds=body.seconds,
                key=body.key,
                address=address_of(request),
            )
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return {"saved": True, "answered": answered}

    @routes.delete("/items/{name}/answers/{dimension}")
    def undo(
        name: str,
        dimension: str,
        key: Annotated[str, Query(**KEY)],
        session: Writer,
        request: Request,
    ) -> dict[str, Any]:
        chosen = item_named(name)
        if dimension not in chosen.question.dimensions:
            raise HTTPException(400, f"{dimension!r} is not a dimension of this question")
        left = judgements.clear(
            *(chosen, dimension, session.annotator), key=key, address=address_of(request)
        )
        return {"saved": True, "answered": left}

    return routes


def _progress(
    settings: WebSettings,
    database: AnswerDatabase,
    set_name: str,
    annotator: int,
    until: float = math.inf,
) -> tuple[int, int, int]:
    """Questions of a set that an annotator has begun (until a time) and finished; all of them."""
    of_set = (SERVED.c.run == settings.run) & (SERVED.c.set == set_name)
    begun = sa.select(
        sa.func.count(sa.case((LEASES.c.begun_at <= until, 1))),
        sa.func.sum(sa.cast(LEASES.c.finished, sa.Integer)),
    ).select_from(sa.join(LEASES, SERVED, LEASES.c.item == SERVED.c.item))
    with database.reading() as connection:
        mine = begun.where(of_set, LEASES.c.annotator == annotator)
        many, finished = connection.execute(mine).one()
        total = sa.select(sa.func.count()).select_from(SERVED).where(of_set)
        return many, finished or 0, connection.execute(total).scalar_one()
