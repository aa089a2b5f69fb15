"""Kills the annotation server at random moments while people answer, and counts what is lost.

    python benchmarks/people_kills.py --workdir=/tmp/people [--kills=100] [--annotators=12]
    python benchmarks/people_kills.py --workdir=/tmp/people --database=postgresql://user@host/name

Annotators answer, change their answers and undo them as fast as the server allows, each save with a
key that is repeated until it is acknowledged, as the page does. The server is killed (SIGKILL) from
0 to --seconds after it has answered again, and started anew. At the end the database is compared
with what was acknowledged:

    lost      acknowledged saves that are not in the audit trail, or answers that differ from the
              last acknowledged one
    doubled   saves that are in the audit trail more than once, and questions with more annotators
              than the overlap
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import pathlib
import random
import socket
import sys
import threading
import time
import uuid

import httpx
import sqlalchemy as sa

from onereward_jax.annotation.questions import FILE, Question, add_questions
from onereward_jax.annotation.server import AnswerDatabase, make_token, serving
from onereward_jax.annotation.server.tables import AUDIT, JUDGEMENTS, LEASES
from onereward_jax.annotation.web_settings import WebSettings, database_url
from onereward_jax.tasks import DIMENSIONS, Task

SET, CANDIDATES, OVERLAP = "questions", 4, 2


def write_questions(workdir: pathlib.Path, count: int) -> None:
    """Questions whose pictures nobody looks at."""
    dimensions = tuple(one.value for one in DIMENSIONS[Task.FILL])
    questions = [
        Question(
            triplet=f"train/{number}",
            task=Task.FILL,
            prompt="a red apple",
            dimensions=dimensions,
            image="image.png",
            mask="mask.png",
            candidates=tuple(f"{candidate}.png" for candidate in range(CANDIDATES)),
            digest=f"{number:016x}",
        )
        for number in range(count)
    ]
    add_questions(workdir / SET / FILE, questions)


def serve(settings: WebSettings) -> None:
    """The server's process; ends when it is killed."""
    with serving(settings):
        threading.Event().wait()


class Annotator(threading.Thread):
    """Answers until it is told to stop; notes every save that was acknowledged.

    Attributes:
      acknowledged: keys of saves, in order.
      last: (question, dimension) -> the last acknowledged (best, worst) in shown positions; None
        after an undo.
    """

    def __init__(self, address: str, token: str, stop: threading.Event, seed: int) -> None:
        super().__init__()
        self._http, self._stop_asked = httpx.Client(base_url=address, timeout=60), stop
        self._token, self._rng = token, random.Random(seed)
        self.acknowledged: list[str] = []
        self.last: dict[tuple[str, str], tuple[int, int] | None] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        """The thread's loop."""
        try:
            self._request("POST", "/api/login", json={"token": self._token})
            csrf = self._request("GET", "/api/session").json()["csrf"]
            self._http.headers["X-CSRF-Token"] = csrf
            item, after = None, None
            while not self._stop_asked.is_set():
                found = self._request("POST", f"/api/sets/{SET}/next", json={"after": after})
                item = found.json()
                if item.get("done"):
                    return
                for dimension in item["dimensions"]:
                    for _ in range(self._rng.choice((1, 1, 2, 3))):
                        self._save(item, dimension)
                after = item["item"]
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def _save(self, item: dict, dimension: str) -> None:
        path = f"/api/items/{item['item']}/answers/{dimension}"
        if self._rng.random() < 0.1:
            self._request("DELETE", path, params={"key": uuid.uuid4().hex})
            self.last[item["item"], dimension] = None
        best, worst = self._rng.sample(range(CANDIDATES), 2)
        key = uuid.uuid4().hex
        body = {"best": best, "worst": worst, "seconds": 1.0, "key": key}
        self._request("PUT", path, json=body)
        self.acknowledged.append(key)
        self.last[item["item"], dimension] = (best, worst)

    def _request(self, method: str, path: str, **content: object) -> httpx.Response:
        """Repeats a request until the server answers."""
        while True:
            try:
                return self._http.request(method, path, **content).raise_for_status()
            except httpx.TransportError:
                time.sleep(0.05)


def run(options: argparse.Namespace) -> dict[str, int]:
    """Kills the server while people answer; returns the counts."""
    port = _free_port()
    write_questions(options.workdir, options.questions)
    settings = WebSettings(
        workdir=options.workdir,
        run=str(options.workdir),
        database=database_url(options.database, options.workdir),
        port=port,
        overlap=OVERLAP,
        writes_per_minute=1_000_000,
    )
    context = multiprocessing.get_context("forkserver")  # a start takes no import
    context.set_forkserver_preload(["onereward_jax.annotation.server"])
    address, rng, stop = f"http://127.0.0.1:{port}", random.Random(options.seed), threading.Event()
    with contextlib.closing(AnswerDatabase(settings.database)) as database:
        names = [f"annotator {number}" for number in range(options.annotators)]
        tokens = [make_token(database, name) for name in names]
    people = [Annotator(address, token, stop, n) for n, token in enumerate(tokens)]
    for one in people:
        one.start()
    for kill in range(options.kills):
        server = _start(context, settings)
        time.sleep(rng.uniform(0.0, options.seconds))
        server.kill()
        server.join()
        if (kill + 1) % 10 == 0:
            saved = sum(len(one.acknowledged) for one in people)
            print(f"{kill + 1} kills, {saved} saves acknowledged", flush=True)
    server = _start(context, settings)
    stop.set()
    for one in people:
        one.join()
    server.kill()
    server.join()
    for one in people:
        if one.error is not None:
            raise one.error
    return counted(settings, people)


def counted(settings: WebSettings, people: list[Annotator]) -> dict[str, int]:
    """Compares the database with what was acknowledged."""
    with contextlib.closing(AnswerDatabase(settings.database)) as database:
        with database.reading() as connection:
            keys = connection.execute(
                sa.select(AUDIT.c.save_key).where(AUDIT.c.action == "answer")
            ).scalars()
            trail = collections.Counter(key.partition(" ")[2] for key in keys)
            rows = connection.execute(
                sa.select(JUDGEMENTS, LEASES.c.order).join(
                    LEASES,
                    (LEASES.c.item == JUDGEMENTS.c.item)
                    & (LEASES.c.annotator == JUDGEMENTS.c.annotator),
                )
            ).all()
    stored = {}
    for row in rows:
        order = json.loads(row.order)
        place = row.annotator, row.item, row.dimension
        stored[place] = order.index(row.best), order.index(row.worst)
    expected = {
        (number, *place): said
        for number, one in enumerate(people, 1)
        for place, said in one.last.items()
        if said is not None
    }
    acknowledged = [key for one in people for key in one.acknowledged]
    annotators = collections.Counter(place[1:] for place in stored)
    return {
        "acknowledged": len(acknowledged),
        "lost": sum(key not in trail for key in acknowledged)
        + sum(stored.get(place) != said for place, said in expected.items()),
        "doubled": sum(count - 1 for count in trail.values())
        + sum(max(0, count - OVERLAP) for count in annotators.values()),
        "answers": len(stored),
        "more than acknowledged": len(stored.keys() - expected.keys()),
    }


def _start(context: multiprocessing.context.BaseContext, settings: WebSettings):
    """Starts the server's process; returns it once it accepts connections."""
    server = context.Process(target=serve, args=(settings,), daemon=True)
    server.start()
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((settings.host, settings.port)).close()
            return server
        if not server.is_alive():
            raise RuntimeError("the server has ended by itself")
        time.sleep(0.01)


def _free_port() -> int:
    """A port that no client is given: one that connects to itself would keep the server out."""
    for port in random.Random().sample(range(20_000, 30_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--workdir", type=pathlib.Path, required=True, help="a new folder")
    add("--database", default="", help="SQLAlchemy URL of an empty database; default: SQLite")
    add("--kills", type=int, default=100)
    add("--annotators", type=int, default=12)
    add("--questions", type=int, default=5000)
    add("--seconds", type=float, default=1.5, help="longest time between an answer and a kill")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    found = run(options)
    told = ", ".join(f"{count} {name}" for name, count in found.items())
    print(f"{options.kills} kills: {told}")
    sys.exit(1 if found["lost"] or found["doubled"] or not found["acknowledged"] else 0)


if __name__ == "__main__":
    main()
