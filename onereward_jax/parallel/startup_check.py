"""Rendezvous before `jax.distributed.initialize`, to report which processes are missing.

The jax runtime aborts a process whose peers do not appear, without naming them. So all processes
first report to process 0, on the port that the runtime uses afterwards, and process 0 replies to
all of them once everybody has reported.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence

from onereward_jax.common.listing import first_of

GO = "go"
"""The reply when all processes are there; any other reply is an error message."""

PAUSE = 0.2
"""Seconds between attempts to reach process 0."""


class PeerLost(RuntimeError):
    """Another process of the run is missing or has failed.

    Attributes:
      code: exit code that this process should end with.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def rendezvous(address: str, count: int, index: int, seconds: float, code: int) -> list[str]:
    """Returns when all processes have reported.

    Args:
      address: host:port of process 0; nothing else may use the port.
      count, index: number of processes, and index of this one.
      seconds: timeout.
      code: exit code of `PeerLost`.

    Returns:
      The host names of all processes, in process order.

    Raises:
      PeerLost: naming missing processes; or process 0 does not reply or has a different count.
      OSError: process 0 cannot listen on the port.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    if index:
        answer = _report(host, int(port), count, index, deadline)
    else:
        answer = _collect(int(port), count, deadline, seconds)
    if not answer.startswith(GO):
        raise PeerLost(answer, code)
    return json.loads(answer.removeprefix(GO))


def names_of(missing: Sequence[int], count: int, hosts: Mapping[int, str] | None = None) -> str:
    """Formats processes as "process 3 (host-3) of 4" or "processes 1, 2 of 4"."""
    hosts = hosts or {}
    named = [f"{one} ({hosts[one]})" if one in hosts else str(one) for one in missing]
    return f"process{'es' if len(missing) > 1 else ''} {', '.join(first_of(named, 8))} of {count}"


def _collect(port: int, count: int, deadline: float, seconds: float) -> str:
    """Process 0: listens until all have reported, then sends its reply to all that have."""
    there: dict[int, tuple[str, socket.socket | None]] = {0: (socket.gethostname(), None)}
    answer = ""
    with _listen(port) as server:
        while len(there) < count and not answer:
            server.settimeout(max(0.0, deadline - time.monotonic()) or 0.001)
            try:
                connection, _ = server.accept()
                connection.settimeout(5.0)
                said = json.loads(_line(connection))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    break
                continue
            except (OSError, ValueError):
                continue  # not one of our processes: a port scanner, a health check
            there[said["index"]] = said["host"], connection
            if said["count"] != count:
                answer = (
                    f"process {said['index']} ({said['host']}) was started as one of "
                    f"{said['count']} processes, process 0 as one of {count}"
                )
    missing = [one for one in range(count) if one not in there]
    if missing and not answer:
        answer = f"{names_of(missing, count)} did not start within {seconds:.0f} s"
    answer = answer or GO + json.dumps([there[one][0] for one in range(count)])
    for _, connection in there.values():
        if connection is not None:
            with connection:
                connection.sendall(answer.encode() + b"\n")
    return answer


def _listen(port: int) -> socket.socket:
    try:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"process 0 cannot listen on port {port}: {error.strerror}") from error


def _report(host: str, port: int, count: int, index: int, deadline: float) -> str:
    """Any other process: reports to process 0 and returns its reply."""
    line = json.dumps({"index": index, "count": count, "host": socket.gethostname()}) + "\n"
    why = "timed out"
    # Process 0 may have started later, and replies when its own timeout ends.
    patience = 2 * (deadline - time.monotonic()) + 5.0
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                connection.sendall(line.encode())
                connection.settimeout(patience)
                if answer := _line(connection):
                    return answer
                why = "it closed the connection"
        except OSError as error:
            why = error.strerror or str(error)
        time.sleep(PAUSE)
    return f"process {index} cannot reach process 0 at {host}:{port}: {why}"


def _line(connection: socket.socket) -> str:
    """Reads until the end of the line or of the connection."""
    with connection.makefile("r", encoding="utf-8") as file:
        return file.readline().strip()
