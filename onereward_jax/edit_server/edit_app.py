"""The FastAPI application: routes, health, the page and the description of the API.

Routes run in threads and put requests into the queue; none of them waits for a model.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response

import onereward_jax
from onereward_jax.annotation.server.access import address_of
from onereward_jax.annotation.server.page_files import PAGE as SHARED
from onereward_jax.annotation.server.page_files import page_files, serve_page, tell_errors
from onereward_jax.annotation.server.protection import Protection, RateLimit
from onereward_jax.edit import edit_plan
from onereward_jax.edit_server.access_token import LOGIN, SESSION_SECONDS, TokenCheck
from onereward_jax.edit_server.edit_work import OF_WINDOWS, whole_pixels
from onereward_jax.edit_server.engine import Engine
from onereward_jax.edit_server.job_routes import job_routes
from onereward_jax.edit_server.request_bodies import About, Defaults, LoginBody, Ready, Wrong
from onereward_jax.edit_server.serve_settings import ServeSettings
from onereward_jax.inference.edit_defaults import EditDefaults
from onereward_jax.tasks import COMMAND_TASKS, DIMENSIONS, FIXED_PROMPTS, task_named

PAGE = Path(__file__).parent / "page"

FROM_ANNOTATION = ("style.css", "dom.js", "picture_view.js")
"""Files of the annotators' page that this page is made of too."""

ADDRESSES = {"": "index.html", "docs": "api.html"}

WRONG_TOKENS = 10
"""Per minute and address."""

DESCRIPTION = (
    "Send a picture and a mask to /api/edits, follow the edit, fetch its result. Requests carry "
    '`Authorization: Bearer TOKEN` if the server has a token. Errors are {"error": a sentence}.'
)


def build_app(
    engine: Engine,
    settings: ServeSettings,
    options: argparse.Namespace,
    stated: EditDefaults,
    names: tuple[str, str],
) -> FastAPI:
    """The application.

    Args:
      engine: the models, which may come later, and the queue.
      settings: where it listens and what it allows.
      options: of the server, see `edit_work.edit_job`.
      stated: defaults of the editor.
      names: of the editor and of the judge, "" for none.

    Raises:
      ValueError: the options are out of range.
    """
    about = _about(settings, options, stated, names)
    app = FastAPI(
        title="onereward serve",
        version=onereward_jax.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(job_routes(engine, options, settings.limits))
    check, logins = TokenCheck(settings.token), RateLimit(WRONG_TOKENS)

    @app.get("/api/about", summary="Models, defaults and limits")
    def what_is_served() -> About:
        return about

    @app.post(LOGIN, status_code=204, summary="Exchange the token for a cookie",
              responses={401: {"model": Wrong}, 429: {"model": Wrong}})  # fmt: skip
    def login(body: LoginBody, request: Request) -> Response:
        address = address_of(request)
        if logins.exceeded(address):
            raise HTTPException(429, "too many wrong links within a minute: wait a little")
        if not check.is_right(body.token):
            logins.count(address)
            raise HTTPException(401, "this link is not valid, or no longer: ask for a new one")
        response, (name, value) = Response(status_code=204), check.cookie
        secure = settings.url.startswith("https://")
        response.set_cookie(
            name, value, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    @app.get("/health", summary="Whether the process answers")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether edits are taken", responses={503: {"model": Ready}})
    def ready(response: Response) -> Ready:
        is_ready = engine.editor is not None and not engine.queue.is_closed
        response.status_code = 200 if is_ready else 503
        return Ready(ready=is_ready, waiting=engine.queue.length)

    serve_page(app, [*page_files(PAGE), *(SHARED / name for name in FROM_ANNOTATION)], ADDRESSES)
    tell_errors(app)
    app.add_middleware(
        Protection, place=settings, body_bytes=settings.limits.upload_mib << 20, also=check
    )
    return app


def _about(
    settings: ServeSettings,
    options: argparse.Namespace,
    stated: EditDefaults,
    names: tuple[str, str],
) -> About:
    """What the page and clients are told; checks the options of the server."""
    request = {**vars(options), "seed": 0, "height": None, "width": None}
    window = request | {"crop": True, "paste_back": None}
    whole = request | {"crop": False} | dict.fromkeys(OF_WINDOWS)
    edit_plan(argparse.Namespace(**window), stated)
    plan = edit_plan(argparse.Namespace(**whole), stated)
    steps = plan.sampling["num_inference_steps"]
    if steps > settings.limits.steps:
        raise ValueError(f"--steps is {steps}, at most --max_steps, {settings.limits.steps}")
    prompted = {name: task_named(name, "a prompt") for name in COMMAND_TASKS}
    unprompted = {name: task_named(name) for name in COMMAND_TASKS}
    return About(
        version=onereward_jax.__version__,
        editor=names[0],
        judge=names[1] or None,
        tasks={name: [one.value for one in DIMENSIONS[task]] for name, task in prompted.items()},
        prompts={
            name: FIXED_PROMPTS[task] for name, task in unprompted.items() if task in FIXED_PROMPTS
        },
        resolution=options.resolution or stated.resolution,
        whole_pixels=whole_pixels(stated),
        defaults=Defaults(
            steps=steps,
            true_cfg_scale=plan.sampling["true_cfg_scale"],
            guidance_scale=plan.sampling["guidance_scale"],
            negative_prompt=options.negative_prompt,
            strength=options.strength,
            feather=options.feather,
            paste_back=plan.feather is not None,
        ),
        limits=dataclasses.asdict(settings.limits),
    )
