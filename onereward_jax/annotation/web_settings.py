"""Settings of the annotation server; works without the extra `people`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from onereward_jax.common.user_path import user_path

DATABASE = "people/people.sqlite"
"""The answer database in a work folder, unless the config names another."""

SETS = {"questions": "Judge the candidates", "questions-ab": "Compare the editors"}
"""Folder of questions in the work folder -> its title. `annotate` writes the first, `evaluate` the
second; those of later rounds are questions-2, questions-3, ...: see `sets_in`."""

_ROUND = re.compile(r"questions-([1-9][0-9]*)")

GOLD = "gold"
"""Annotator of the gold answers."""


def set_title(name: str) -> str | None:
    """The title of a set of questions; None if no set has this name."""
    found = _ROUND.fullmatch(name)
    return f"Judge the candidates of round {found[1]}" if found else SETS.get(name)


def sets_in(workdir: Path) -> dict[str, str]:
    """The sets of questions of a run, also those that are not asked yet -> titles."""
    first, last = SETS
    found = {}
    for folder in workdir.glob(f"{first}-*"):
        if match := _ROUND.fullmatch(folder.name):
            found[int(match[1])] = folder.name
    names = (first, *(found[number] for number in sorted(found)), last)
    return {name: set_title(name) for name in names}


@dataclasses.dataclass(frozen=True)
class WebSettings:
    """Settings of the annotation server.

    Attributes:
      workdir: the work folder, with the questions.
      run: name of the work folder in the database; the questions of a run are served by it only.
      database: an SQLAlchemy URL.
      host, port: where the server listens; port 0: any free one.
      url: address that people use if it is another, e.g. "https://..." of a TLS proxy; "": none.
      overlap: number of annotators per question.
      lease_minutes: how long a question that is begun is kept for its annotator.
      gold: answers that are known to be right, as `answers.read_answers` takes them; None: none.
      gold_every: one in so many questions of an annotator is a gold one, until all were asked.
      guidelines: folder with `<dimension>.md` and pictures; None: none.
      writes_per_minute: limit of writes of an annotator.
      logins_per_minute: limit of refused logins from an address.
    """

    workdir: Path
    run: str
    database: str
    host: str = "127.0.0.1"
    port: int = 8000
    url: str = ""
    overlap: int = 1
    lease_minutes: float = 30.0
    gold: Path | None = None
    gold_every: int = 10
    guidelines: Path | None = None
    writes_per_minute: int = 600
    logins_per_minute: int = 10

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def database_url(named: str, workdir: Path) -> str:
    """The SQLAlchemy URL of `config.annotate.web.database`; "": `DATABASE` in the work folder.

    Raises:
      ValueError: it is in a bucket, where no database can be.
    """
    if named.startswith("gs://"):
        raise ValueError(
            f"config.annotate.web.database is {named!r}: a database cannot be in a bucket; give a "
            "local file or the URL of a PostgreSQL server"
        )
    if "://" in named:
        return named
    path = user_path(named) if named else workdir / DATABASE
    return f"sqlite:///{path.absolute()}"


def has_database(named: str, workdir: Path) -> bool:
    """Whether there can be answers: a server, or a SQLite file that exists."""
    url = database_url(named, workdir)
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file()
