"""Several processes, one a host, as one run: starting, waiting for each other, ending together.

All of them run the same program on the same global mesh; process 0 alone writes files that are
not sharded arrays. What the runtime of jax lacks is here: it says who is missing, and it lets no
process wait for one that has ended with an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from onereward_jax.common.user_errors import (
    TRY_AGAIN,
    WAITING,
    Stopped,
    Unreachable,
    WaitingForPeople,
)
from onereward_jax.parallel.jax_internals import detect_cluster, key_value_store, process_count
from onereward_jax.parallel.rendezvous import PeerLost, names_of, rendezvous

SILENCE_SECONDS = 120.0
"""A process not heard of for so long is taken for dead, and all others are ended. Four processes
that compiled at once on two busy cores were silent for more than 60 s, and alive."""

START_FACTOR = 3
"""So many times longer may processes take to start: one host installs faster than another."""

BARRIER_SECONDS = 1800.0
"""A process that lives, but does not come to where the others wait for it."""

LINGER_SECONDS = 3.0
"""Process 0 ends so much later than it fails: without it nobody can read why."""

CRASHED = 1

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
KEYS = "onereward"
"""Prefix of what the processes tell each other in the runtime's key-value store."""
_broadcasts = itertools.count(1)
_gathers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Where the processes of a run meet.

    Attributes:
      address: host:port of process 0.
      count, index: how many processes there are, and which this is.
      detected: found in a cluster's own environment, which then also deals devices to the
        processes of a host. Otherwise each takes all it sees.
    """

    address: str
    count: int
    index: int
    detected: bool


def find_cluster_config(
    address: str | None = None,
    count: int | None = None,
    index: int | None = None,
    *,
    seconds: float = SILENCE_SECONDS,
    environment: Mapping[str, str] = os.environ,
) -> ClusterConfig:
    """Where to meet: as given, else by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, else as Cloud TPU, GKE or Slurm say.

    Args:
      address, count, index: all or none.
      seconds: to wait for a name server to know process 0.
      environment: variables.

    Raises:
      ValueError: in one sentence, what is missing or wrong.
    """
    given = dict(zip(("--coordinator", "--process_count", "--process_index"),
                     (address, count, index)))  # fmt: skip
    if all(value is None for value in given.values()):
        given = {name: environment.get(name) for name in _VARIABLES}
    absent = [name for name, value in given.items() if value is None]
    if absent and len(absent) < len(given):
        stated = ", ".join(name for name in given if name not in absent)
        raise ValueError(f"{stated} without {', '.join(absent)}: give all three, or none")
    if not absent:
        return _checked(given, detected=False)
    try:
        found = detect_cluster(seconds)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"--distributed: the cluster does not tell: {error}") from error
    if None in found:
        raise ValueError(
            "--distributed: neither Cloud TPU, GKE nor Slurm is found here; give --coordinator="
            "host:port, --process_count and --process_index, or leave --distributed out"
        )
    names = ("the cluster's coordinator", "its process count", "its process number")
    return _checked(dict(zip(names, found)), detected=True)


def _checked(given: Mapping[str, Any], *, detected: bool) -> ClusterConfig:
    """The cluster configuration, if the three values make sense."""
    (at, address), (of, count), (which, index) = given.items()
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{at} is {address!r}: host:port expected")
    for name, value in ((of, count), (which, index)):
        if not str(value).isdecimal():
            raise ValueError(f"{name} is {value!r}: a whole number expected")
    if not int(index) < int(count):
        raise ValueError(f"{which} is {index}: {of} is {count}, so 0 ... {int(count) - 1} expected")
    return ClusterConfig(str(address), int(count), int(index), detected)


def initialize(cluster: ClusterConfig, silence: float = SILENCE_SECONDS) -> None:
    """Becomes one of the processes of the run. To be called before anything else asks for devices.

    Args:
      cluster: see `find_cluster_config`.
      silence: see `SILENCE_SECONDS`.

    Raises:
      PeerLost: naming the processes that have not started within `START_FACTOR` times as long.
      OSError: process 0 cannot listen on its port.
    """
    start = START_FACTOR * silence
    hosts = rendezvous(cluster.address, cluster.count, cluster.index, start, TRY_AGAIN)
    jax.distributed.initialize(
        cluster.address,
        cluster.count,
        cluster.index,
        cluster_detection_method=None if cluster.detected else "deactivate",
        initialization_timeout=round(start),
        heartbeat_timeout_seconds=round(silence),
        shutdown_timeout_seconds=round(silence),
    )
    if cluster.index == 0:
        key_value_store().key_value_set(f"{KEYS}/hosts", json.dumps(hosts))


def barrier(event: str, seconds: float | None = BARRIER_SECONDS) -> None:
    """Returns when every process has called it for `event`, as often as this one.

    Args:
      event: what is waited for, without slashes; part of the message.
      seconds: how long; None: as long as all processes live.

    Raises:
      PeerLost: naming the processes that are missing, or the one that has failed.
      Stopped, WaitingForPeople: another process has ended with it.
    """
    if not is_multiprocess():
        return
    client, count, index = key_value_store(), jax.process_count(), jax.process_index()
    place = f"{KEYS}/at/{event}/"
    turn = len(client.key_value_dir_get(f"{place}{index}/"))
    client.key_value_set(f"{place}{index}/{turn}", "")
    started, pause = time.monotonic(), 0.01
    while True:
        found = {key.removeprefix(place) for key, _ in client.key_value_dir_get(place)}
        missing = [one for one in range(count) if f"{one}/{turn}" not in found]
        if not missing:
            return
        raise_peer_failure(client)
        waited = time.monotonic() - started
        if seconds is not None and waited > seconds:
            who = names_of(missing, count, dict(enumerate(_hosts(client))))
            raise PeerLost(f"{who} did not come to {event!r} within {seconds:.0f} s", TRY_AGAIN)
        time.sleep(pause)
        pause = min(2.0 * pause, 1.0)


def broadcast_from_writer(make: Callable[[], str]) -> str:
    """What `make` gives on process 0, on every process; all call it equally often.

    However long it may take: a dead process 0 is noticed by the runtime.

    Raises:
      PeerLost: process 0 has failed.
    """
    if not is_multiprocess():
        return make()
    key = f"{KEYS}/broadcast/{next(_broadcasts)}"
    if is_writer():
        key_value_store().key_value_set(key, make())
    barrier("a decision of process 0", seconds=None)
    return key_value_store().blocking_key_value_get(key, 10_000)


def gather_on_writer(text: str) -> list[str]:
    """What every process says, in their order, on process 0; nothing on the others.

    All call it equally often; process 0 waits for the others, they for nobody. No device is asked.

    Raises:
      PeerLost: on process 0, another process has failed.
    """
    if not is_multiprocess():
        return [text]
    client, place = key_value_store(), f"{KEYS}/gather/{next(_gathers)}/"
    client.key_value_set(f"{place}{jax.process_index()}", text)
    if not is_writer():
        return []
    pause = 0.001
    while len(found := client.key_value_dir_get(place)) < jax.process_count():
        raise_peer_failure(client)
        time.sleep(pause)
        pause = min(2.0 * pause, 1.0)
    client.key_value_delete(place)
    by_process = {int(key.removeprefix(place)): said for key, said in found}
    return [by_process[index] for index in sorted(by_process)]


def shared_value(name: str, make: Callable[[], str]) -> str:
    """What `make` gives on process 0 when it first asks for `name`, the same everywhere.

    Unlike `broadcast_from_writer`, processes may ask at different times and any number of times.

    Args:
      name: of the question, without slashes.
      make: gives the answer; called on process 0 only.

    Raises:
      PeerLost: process 0 has failed.
    """
    if not is_multiprocess():
        return make()
    client, place = key_value_store(), f"{KEYS}/shared_value/{name}/"
    pause = 0.01
    while not (found := client.key_value_dir_get(place)):
        if is_writer():
            client.key_value_set(f"{place}answer", make())
        else:
            raise_peer_failure(client)
            time.sleep(pause)
            pause = min(2.0 * pause, 1.0)
    return found[0][1]


def first_on_host(name: str) -> bool:
    """Whether this process has the lowest number of all that give the same name; all must ask."""
    if not is_multiprocess():
        return True
    names = multihost_utils.process_allgather(np.array(zlib.crc32(name.encode()), np.uint32))
    return int(np.argmax(names == names[jax.process_index()])) == jax.process_index()


def true_on_all(here: bool) -> bool:
    """Whether all processes say so; all must ask."""
    if not is_multiprocess():
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).all())


def is_multiprocess() -> bool:
    """Whether this is one of several processes; asks no device."""
    return jax.distributed.is_initialized() and process_count() > 1


def is_writer() -> bool:
    """Whether this process writes what is not sharded: files, the log, the progress bar."""
    return jax.process_index() == 0


@contextlib.contextmanager
def shutdown_together(orderly: Container[int], silence: float) -> Iterator[None]:
    """What a process of several does at its end, in place of waiting for peers that never come.

    A failure, or that people are waited for, is told to the others, who learn of it at
    `barrier`; the process then ends at once. The runtime ends those that wait for it
    elsewhere, within the silence given to `initialize`.

    Args:
      orderly: exit codes that all processes end with at the same point.
      silence: as given to `initialize`.
    """
    try:
        yield
    except SystemExit as ending:
        if is_multiprocess():
            code = ending.code if isinstance(ending.code, int) else CRASHED
            cause = ending.__context__
            stopped = isinstance(cause, Stopped)
            by_itself = isinstance(cause, PeerLost | Unreachable) or (stopped and cause.alone)
            if code not in orderly or by_itself:
                exit_now(code, str(cause or ""), stopped=stopped)
            _shutdown()
        raise
    except BaseException as error:
        if is_multiprocess():
            traceback.print_exc()
            if isinstance(error, jax.errors.JaxRuntimeError):
                # Perhaps a peer died in the midst of a collective; then we are ended too.
                _publish_failure(key_value_store(), CRASHED, _first_line(error))
                sys.stderr.flush()
                time.sleep(2.0 * silence)
            exit_now(CRASHED, _first_line(error))
        raise
    if is_multiprocess():
        _shutdown()


def _shutdown() -> None:
    """The end of a run that all processes end alike."""
    try:
        barrier("the end")
    except PeerLost as lost:
        print(f"error: {lost}", file=sys.stderr)
        exit_now(lost.code, str(lost))
    jax.distributed.shutdown()


def exit_now(code: int, sentence: str, *, stopped: bool = False) -> NoReturn:
    """Ends this process now, whatever its threads are doing; tells the others why.

    Args:
      code: its exit code.
      sentence: what the others say.
      stopped: it was asked to stop, and so are they; otherwise they call it a failure.
    """
    if is_multiprocess():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 has ended
            _publish_failure(key_value_store(), code, sentence, stopped)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_multiprocess() and is_writer():
        time.sleep(LINGER_SECONDS)
    os._exit(code)


def _publish_failure(client: Any, code: int, sentence: str, stopped: bool = False) -> None:
    text = json.dumps({"code": code, "sentence": sentence, "stopped": stopped})
    key = f"{KEYS}/failed/{jax.process_index()}"
    client.key_value_set(key, text, allow_overwrite=True)


def raise_peer_failure(client: Any) -> None:
    """Raises what another process has told of: `PeerLost` for a failure.

    Args:
      client: the key-value store.
    """
    for key, text in client.key_value_dir_get(f"{KEYS}/failed/"):
        failure, index = json.loads(text), int(key.rpartition("/")[2])
        if failure["code"] == WAITING:
            raise WaitingForPeople(failure["sentence"])
        if failure["stopped"]:
            raise Stopped(failure["sentence"], alone=True)
        who = names_of([index], jax.process_count(), dict(enumerate(_hosts(client))))
        raise PeerLost(f"{who} has failed: {failure['sentence']}", failure["code"])


def _hosts(client: Any) -> list[str]:
    return json.loads(client.blocking_key_value_get(f"{KEYS}/hosts", 10_000))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
