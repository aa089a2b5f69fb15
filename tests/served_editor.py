"""A server of the editor on a free port, with small pictures to send to it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageDraw

from onereward_jax import serve_editor
from onereward_jax.annotation.server.http_server import listening
from onereward_jax.edit_server import Limits, ServeSettings
from onereward_jax.edit_server.edit_app import build_app
from onereward_jax.edit_server.engine import Engine
from onereward_jax.edit_server.job_queue import JobQueue
from onereward_jax.inference.edit_defaults import EditDefaults

STEPS, BATCH = 2, 2


@dataclasses.dataclass
class Served:
    """A server whose engine runs only when told to."""

    http: httpx.Client
    engine: Engine | None

    def post(self, path: str = "/api/edits", **body: object) -> httpx.Response:
        return self.http.post(path, json=body)

    def refused(self, path: str = "/api/edits", **body: object) -> tuple[int, str]:
        answer = self.post(path, **body)
        return answer.status_code, answer.json()["error"]

    def states(self, place: str) -> list[dict]:
        """All events of a request, up to its end."""
        with self.http.stream("GET", f"{place}/events") as stream:
            return [json.loads(one[6:]) for one in stream.iter_lines() if one.startswith("data: ")]

    def result(self, place: str) -> np.ndarray:
        assert self.states(place)[-1]["state"] == "done"
        return pixels(self.http.get(f"{place}/result").content)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        work = threading.Thread(target=self.engine.run, args=(stop,))
        work.start()
        try:
            yield
        finally:
            stop.set()
            work.join()


@contextlib.contextmanager
def served(editor, judge_model, token: str = "", **limits: int) -> Iterator[Served]:
    options = serve_editor.parser().parse_args([f"--steps={STEPS}"])
    settings = ServeSettings(port=0, token=token, limits=Limits(**limits), batch_size=BATCH)
    most = settings.limits
    engine = Engine(JobQueue(most.queue, BATCH, most.kept, most.kept_mib << 20), BATCH)
    stated = EditDefaults() if editor is None else editor.defaults
    app = build_app(engine, settings, options, stated, ("an editor", "a judge"))
    if editor is not None:
        engine.ready(editor, judge_model)
    with listening(app, settings, name="test", options="--port") as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            yield Served(http, engine)


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def mask(*box: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    made = Image.new("L", size)
    ImageDraw.Draw(made).rectangle(box or (10, 12, 40, 44), fill=255)
    return made


def content(made: Image.Image) -> bytes:
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


def sent(made: Image.Image | bytes) -> str:
    return base64.b64encode(made if isinstance(made, bytes) else content(made)).decode()


def pixels(file: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file) if isinstance(file, bytes) else file))
