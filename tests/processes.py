"""Several processes on this machine, each with some virtual devices, for tests of many hosts."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]


def free_address() -> str:
    """localhost and a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process with so many virtual devices: the last flag counts."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags}


def start(
    command: Sequence[str], folder: pathlib.Path, *, index: int, devices: int, **variables: str
) -> subprocess.Popen:
    """A process with `devices` virtual devices; it speaks to folder/process-<index>.txt."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=with_devices(devices) | variables,
        stdout=(folder / f"process-{index}.txt").open("w"),
        stderr=subprocess.STDOUT,
    )


def said(folder: pathlib.Path, index: int) -> str:
    """All that a process said."""
    return (folder / f"process-{index}.txt").read_text()


def codes(processes: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    """Exit codes, once all have ended; those that have not after `seconds` are killed."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
