"""Before a run of several processes starts: who is there?

The runtime of jax aborts a process whose peers do not appear, and does not say which. So they call
the roll first, over the port that the runtime uses afterwards: each tells process 0 its number,
process 0 answers all of them at once.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence

GO = "go"
"""The answer when everybody is there; any other answer is a sentence that says what is wrong."""

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
    """Returns when all processes are there.

    Args:
      address: host:port of process 0; nothing else may use the port.
      count, index: how many processes there are, and which this is.
      seconds: how long to wait for the others.
      code: of `PeerLost`.

    Returns:
      The host names of all processes, in their order.

    Raises:
      PeerLost: naming missing processes; or process 0 does not answer, or counts differently.
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
    """Processes in words: "process 3 (host-3) of 4" or "processes 1, 2 of 4"."""
    hosts = hosts or {}
    named = [f"{one} ({hosts[one]})" if one in hosts else str(one) for one in missing[:8]]
    if len(missing) > len(named):
        named.append(f"and {len(missing) - len(named)} more")
    return f"process{'es' if len(missing) > 1 else ''} {', '.join(named)} of {count}"


def _collect(port: int, count: int, deadline: float, seconds: float) -> str:
    """Process 0: listens until all have reported; tells the answer to all that have."""
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
                continue  # not one of ours: a port scanner, a health check
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
    """Any other process: reports to process 0 and returns its answer."""
    line = json.dumps({"index": index, "count": count, "host": socket.gethostname()}) + "\n"
    why = "no time was left"
    # Process 0 may have been started later, and answers when its own time is over.
    patience = 2 * (deadline - time.monotonic()) + 5.0
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                connection.sendall(line.encode())
                connection.settimeout(patience)
                if answer := _line(connection):
                    return answer
                why = "it hung up"
        except OSError as error:
            why = error.strerror or str(error)
        time.sleep(PAUSE)
    return f"process {index} cannot reach process 0 at {host}:{port}: {why}"


def _line(connection: socket.socket) -> str:
    """What the other side says until it ends the line or hangs up."""
    with connection.makefile("r", encoding="utf-8") as file:
        return file.readline().strip()
