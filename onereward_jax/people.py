"""Serve a run's questions to people, and manage who may answer.

    onereward people serve --workdir=runs/mine
    onereward people token --workdir=runs/mine --name=ann
    onereward people token --workdir=runs/mine --name=lea --admin
    onereward people annotators --workdir=runs/mine
    onereward people revoke --workdir=runs/mine --name=ann
    onereward people export --workdir=runs/mine > answers.jsonl

The settings are those of the run, `config.annotate.web`. The questions must have been written: the
stages annotate and evaluate do that, and end or wait.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onereward_jax.annotation.web_settings import SETS, WebSettings, has_database, set_title
from onereward_jax.chain.saved_command import saved_config
from onereward_jax.common.periodic_thread import call_periodically
from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.common.user_path import user_path
from onereward_jax.stages.people_answers import web_settings
from onereward_jax.storage import BucketFolder, WorkingCopy, copies_folder, is_bucket

if TYPE_CHECKING:
    from onereward_jax.annotation.server import AnswerDatabase

FETCH_SECONDS = 60.0
"""How often the questions of a work folder in a bucket are fetched."""


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="onereward people", description=__doc__)
    commands = options.add_subparsers(dest="command", required=True, metavar="command")
    made = {}
    for name, (_, summary) in COMMANDS.items():
        made[name] = commands.add_parser(
            name, prog=f"onereward people {name}", description=summary, help=summary
        )
        made[name].add_argument("--workdir", required=True, help="the folder of the run")
    add = made["serve"].add_argument
    add("--host", help="address to listen on; default: config.annotate.web.host")
    add("--port", type=int, help="port to listen on; default: config.annotate.web.port")
    for name in ("token", "revoke"):
        made[name].add_argument("--name", required=True, help="name of the annotator")
    made["token"].add_argument("--admin", action="store_true", help="open the admin page to them")
    add = made["export"].add_argument
    add("--set", default="questions", help="which questions: questions, questions-2, questions-ab")
    return options


def serve(options: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    from onereward_jax.annotation.server import (
        check_server,
        first_link,
        serving,
        traffic_warning,
    )

    settings = _settings(options)
    changed = {name: getattr(options, name) for name in ("host", "port")}
    settings = dataclasses.replace(
        settings, **{name: value for name, value in changed.items() if value is not None}
    )
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    check_server(settings)
    with _questions_kept_up(settings), serving(settings) as server:
        if warning := traffic_warning(settings):
            print(warning, flush=True)
        print(f"serving {settings.run} at {server.address}", flush=True)
        if link := first_link(server):
            print(f"log in as admin: {link}", flush=True)
        print("make links for others: onereward people token; Ctrl-C ends this", flush=True)
        stop.wait()
    print("stopped, as asked; all answers are saved", flush=True)


def token(options: argparse.Namespace) -> None:
    """Prints a login link, once."""
    from onereward_jax.annotation.server import login_link, make_token, usual_address

    settings = _settings(options)
    with _database(settings) as database:
        made = make_token(database, options.name, admin=options.admin)
    print(login_link(usual_address(settings), made))


def list_annotators(options: argparse.Namespace) -> None:
    """Prints one line per annotator."""
    from onereward_jax.annotation.server import annotators

    with _database(_settings(options), existing=True) as database:
        for one in annotators(database):
            seen = "never"
            if one.last_seen is not None:
                seen = datetime.datetime.fromtimestamp(one.last_seen).isoformat(" ", "minutes")
            kind = "revoked" if one.revoked else "admin" if one.admin else "annotator"
            print(f"{one.name}\t{kind}\tlast seen: {seen}")


def revoke_token(options: argparse.Namespace) -> None:
    """Ends a token."""
    from onereward_jax.annotation.server import revoke

    with _database(_settings(options), existing=True) as database:
        revoke(database, options.name)
    print(f"{options.name} can no longer log in; their answers stay")


def export(options: argparse.Namespace) -> None:
    """Prints all answers as JSON lines."""
    from onereward_jax.annotation.server import answer_lines

    if set_title(options.set) is None:
        raise ValueError(f"--set is {options.set!r}: questions, questions-2, ... or questions-ab")
    with _database(_settings(options), existing=True) as database:
        for line in answer_lines(database, options.set):
            print(json.dumps(line, ensure_ascii=False))


COMMANDS = {
    "serve": (serve, "serve the questions of a run"),
    "token": (token, "print a login link for an annotator; a new one ends the former"),
    "annotators": (list_annotators, "list the annotators"),
    "revoke": (revoke_token, "end an annotator's link"),
    "export": (export, "print the answers as JSON lines, see annotation/questions.py"),
}
"""Name -> function, summary."""


def _settings(options: argparse.Namespace) -> WebSettings:
    """The settings of the run; of one in a bucket, the questions are in a copy on this host."""
    if is_bucket(options.workdir):
        run = options.workdir.rstrip("/")
        return web_settings(saved_config(run), _copy_of(run).local, run)
    workdir = user_path(options.workdir).resolve()
    return web_settings(saved_config(workdir), workdir, str(workdir))


def _copy_of(run: str) -> WorkingCopy:
    """A copy of its own, beside that of a run on this host."""
    bucket = BucketFolder(run)
    return WorkingCopy(bucket, copies_folder() / "people" / bucket.url.removeprefix("gs://"))


def _questions_kept_up(settings: WebSettings) -> contextlib.AbstractContextManager[None]:
    """Fetches the questions from a bucket, now and every minute; does nothing without a bucket."""
    if not is_bucket(settings.run):
        return contextlib.nullcontext()
    copy = _copy_of(settings.run)

    def fetch() -> None:
        for folder in {*SETS, *filter(set_title, copy.bucket.folders())}:
            copy.fetch(folder)

    fetch()
    return call_periodically(fetch, FETCH_SECONDS, "questions in the bucket")


@contextlib.contextmanager
def _database(settings: WebSettings, *, existing: bool = False) -> Iterator[AnswerDatabase]:
    from onereward_jax.annotation.server import AnswerDatabase

    if existing and not has_database(settings.database, settings.workdir):
        raise ValueError(f"nobody has a link yet: there is no database {settings.database}")
    with contextlib.closing(AnswerDatabase(settings.database)) as database:
        yield database


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    run_command(parser(), lambda options: COMMANDS[options.command][0](options), argv)


if __name__ == "__main__":
    main()
