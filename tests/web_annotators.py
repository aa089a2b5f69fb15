"""Work folders with questions to people, a server on a free port, and annotators that click."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import random
import uuid
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
from PIL import Image

from onereward_jax.annotation.questions import FILE, USABLE, Question, add_questions
from onereward_jax.annotation.server import AnswerDatabase, Server, make_token, serving
from onereward_jax.annotation.web_settings import WebSettings, database_url
from onereward_jax.tasks import DIMENSIONS, Task

SET, AB = "questions", "questions-ab"


def question(folder: pathlib.Path, number: int, task: Task, candidates: int) -> Question:
    """A question with small pictures; a single candidate is asked about its usability."""
    name = f"train/{task.value}-{candidates}-{number}"
    files = ("image", "mask", *map(str, range(candidates)))
    paths = [f"{name}/{file}.png" for file in files]
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / path)
    dimensions = tuple(one.value for one in DIMENSIONS[task])
    return Question(
        triplet=name,
        task=task,
        prompt="a red apple",
        dimensions=dimensions if candidates > 1 else (USABLE,),
        image=paths[0],
        mask=paths[1],
        candidates=tuple(paths[2:]),
        digest=f"{task.value}-{candidates}-{number:05}",
    )


def write_questions(workdir: pathlib.Path, count: int, *, task=Task.REMOVAL, candidates=4) -> None:
    """Questions to judge; removal has one dimension, fill has four."""
    folder = workdir / SET
    questions = [question(folder, number, task, candidates) for number in range(count)]
    add_questions(folder / FILE, questions)


def write_comparisons(workdir: pathlib.Path, count: int) -> None:
    """Comparisons of two results, and single ones."""
    folder = workdir / AB
    questions = [question(folder, n, Task.REMOVAL, n % 2 + 1) for n in range(count)]
    add_questions(folder / FILE, questions)


def write_gold(path: pathlib.Path, numbers: list[int], best: int = 0) -> None:
    """Gold answers to questions of `write_questions` about removal."""
    lines = [
        {"digest": f"removal-4-{n:05}", "dimension": "removal_quality", "best": best, "worst": 3}
        for n in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def settings_of(workdir: pathlib.Path, database: str = "", **changes: object) -> WebSettings:
    """Settings of a server on a free port."""
    url = database or database_url("", workdir)
    basic = WebSettings(workdir=workdir, run=str(workdir), database=url, port=0)
    return dataclasses.replace(basic, **changes)


@contextlib.contextmanager
def served(workdir: pathlib.Path, **changes: object) -> Iterator[Server]:
    """A server of a work folder."""
    with serving(settings_of(workdir, **changes)) as server:
        yield server


def token_of(workdir: pathlib.Path, name: str, database: str = "", **options: bool) -> str:
    """A new token."""
    with contextlib.closing(AnswerDatabase(settings_of(workdir, database).database)) as opened:
        return make_token(opened, name, **options)


class Browser:
    """An annotator who is logged in."""

    def __init__(self, address: str, token: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=60)
        self.login(token)

    def login(self, token: str) -> None:
        """As the page does with the fragment of the link."""
        answer = self.http.post("/api/login", json={"token": token})
        assert answer.status_code == 204, answer.text
        self.http.headers["X-CSRF-Token"] = self.session()["csrf"]

    def session(self) -> dict:
        """Who one is, and what is left."""
        return self.http.get("/api/session").raise_for_status().json()

    def next(self, after: str | None = None, set_name: str = SET) -> dict | None:
        """The next question; None if nothing is left."""
        answer = self.http.post(f"/api/sets/{set_name}/next", json={"after": after})
        found = answer.raise_for_status().json()
        return None if found.get("done") else found

    def put(self, item: dict, dimension: str, key: str = "", **said: object) -> httpx.Response:
        """Saves an answer."""
        body = {"seconds": 1.5, "key": key or uuid.uuid4().hex, **said}
        return self.http.put(f"/api/items/{item['item']}/answers/{dimension}", json=body)

    def answer(self, item: dict, rng: random.Random | None = None) -> dict[str, dict]:
        """Answers all dimensions; returns what was said."""
        rng, said = rng or random.Random(item["item"]), {}
        for dimension in item["dimensions"]:
            if dimension == USABLE:
                said[dimension] = {"usable": rng.random() < 0.5}
            elif rng.random() < 0.2:
                said[dimension] = {"best": None, "worst": None}
            else:
                best, worst = rng.sample(range(len(item["pictures"])), 2)
                said[dimension] = {"best": best, "worst": worst}
            answer = self.put(item, dimension, **said[dimension])
            assert answer.status_code == 200, answer.text
        return said

    def work(self, set_name: str = SET) -> list[str]:
        """Answers until nothing is left; returns the questions."""
        done, item = [], self.next(set_name=set_name)
        while item is not None:
            self.answer(item)
            done.append(item["item"])
            item = self.next(item["item"], set_name)
        return done
