"""A real PostgreSQL server in a temporary folder, on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator

import psycopg
import pytest


def programs() -> pathlib.Path | None:
    """The folder of `initdb` and `postgres`; None if they are not installed."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if on_path := shutil.which("initdb"):
        found.append(pathlib.Path(on_path).resolve())
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgresql_server() -> Iterator[str]:
    """Starts a server; yields its socket's folder. It refuses root: then user postgres runs it."""
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.getuid() else {}
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user:
            shutil.chown(folder, "postgres")
        where = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
        made = ["initdb", "--pgdata=data", "--username=people", "--auth=trust", "--no-instructions"]
        subprocess.run([programs() / made[0], *made[1:]], check=True, **where)
        flags = ["-D", "data", "-k", folder, "-c", "listen_addresses=", "-c", "max_connections=200"]
        with open(f"{folder}/log", "wb") as log:
            server = subprocess.Popen([programs() / "postgres", *flags], stderr=log, **where)
        try:
            _wait(folder, server)
            yield folder
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(folder: str, server: subprocess.Popen) -> None:
    while server.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=folder, user="people", dbname="postgres").close()
            return
    raise RuntimeError(pathlib.Path(folder, "log").read_text())


def new_database(folder: str) -> str:
    """The SQLAlchemy URL of a new database."""
    name = f"people_{uuid.uuid4().hex}"
    with psycopg.connect(host=folder, user="people", dbname="postgres", autocommit=True) as one:
        one.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://people@/{name}?host={folder}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server; its programs may be missing on a machine of a developer, not in CI."""
    if programs() is None and not os.environ.get("CI"):
        pytest.skip("initdb of PostgreSQL is not installed")
    with postgresql_server() as folder:
        yield folder
