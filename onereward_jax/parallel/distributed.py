"""Multi-process runs: initialize, barriers, broadcasts, shutdown together.

All processes (one per host) run the same program on the same global mesh; process 0 alone writes
files other than sharded arrays. In addition to `jax.distributed`, errors name the missing
processes, and no process waits for one that has failed.
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
from onereward_jax.parallel.startup_check import PeerLost, names_of, rendezvous

SILENCE_SECONDS = 120.0
"""Heartbeat timeout: a process silent for this long counts as dead, and all others are ended. Four
processes that compiled at once on two busy cores were silent for more than 60 s, but alive."""

START_FACTOR = 3
"""Timeout of the start, as a multiple of the heartbeat timeout: some hosts install more slowly."""

BARRIER_SECONDS = 1800.0
"""Timeout of a barrier for processes that are alive but do not reach it."""

LINGER_SECONDS = 3.0
"""Delay between a failure of process 0 and its exit: it hosts the store in which peers read why."""

CRASHED = 1

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
KEYS = "onereward"
"""Prefix of this package's keys in the runtime's key-value store."""
_broadcasts = itertools.count(1)
_gathers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Coordinator address, process count and process index of a run.

    Attributes:
      address: host:port of process 0.
      count, index: number of processes, and index of this one.
      detected: read from the cluster's environment, which then also assigns devices to the
        processes of a host. Otherwise each process uses all devices it sees.
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
    """The cluster config, from the first of these sources that is set.

    The arguments; then JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; then Cloud
    TPU, GKE or Slurm.

    Args:
      address, count, index: all or none.
      seconds: to wait until a name server resolves process 0.
      environment: environment variables.

    Raises:
      ValueError: a value is missing or wrong, or no cluster is found.
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
        raise ValueError(f"--distributed: cluster detection failed: {error}") from error
    if None in found:
        raise ValueError(
            "--distributed: found neither Cloud TPU, GKE nor Slurm; set --coordinator=host:port, "
            "--process_count and --process_index, or leave out --distributed"
        )
    names = ("the cluster's coordinator", "its process count", "its process index")
    return _checked(dict(zip(names, found)), detected=True)


def _checked(given: Mapping[str, Any], *, detected: bool) -> ClusterConfig:
    """The cluster config, after checking the three values."""
    (at, address), (of, count), (which, index) = given.items()
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{at} is {address!r}: host:port expected")
    for name, value in ((of, count), (which, index)):
        if not str(value).isdecimal():
            raise ValueError(f"{name} is {value!r}: an integer expected")
    if not int(index) < int(count):
        raise ValueError(f"{which} is {index}: {of} is {count}, so 0 ... {int(count) - 1} expected")
    return ClusterConfig(str(address), int(count), int(index), detected)


def initialize(cluster: ClusterConfig, silence: float = SILENCE_SECONDS) -> None:
    """Joins the run. Call it before anything else queries devices.

    Args:
      cluster: see `find_cluster_config`.
      silence: heartbeat timeout in seconds, see `SILENCE_SECONDS`.

    Raises:
      PeerLost: naming the processes that did not start within `START_FACTOR` * `silence` seconds.
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
    """Returns once every process has called it for `event`, as many times as this one.

    Args:
      event: name of the barrier, without slashes; part of the message.
      seconds: timeout; None: no timeout while all processes are alive.

    Raises:
      PeerLost: naming the missing processes, or the one that failed.
      Stopped, WaitingForPeople: another process ended with it.
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
            raise PeerLost(f"{who} did not reach {event!r} within {seconds:.0f} s", TRY_AGAIN)
        time.sleep(pause)
        pause = min(2.0 * pause, 1.0)


def broadcast_from_writer(make: Callable[[], str]) -> str:
    """Broadcasts the result of `make` on process 0; all must call it the same number of times.

    There is no timeout: the runtime detects a dead process 0.

    Raises:
      PeerLost: process 0 failed.
    """
    if not is_multiprocess():
        return make()
    key = f"{KEYS}/broadcast/{next(_broadcasts)}"
    if is_writer():
        key_value_store().key_value_set(key, make())
    barrier("a decision of process 0", seconds=None)
    return key_value_store().blocking_key_value_get(key, 10_000)


def gather_on_writer(text: str) -> list[str]:
    """Gathers a text per process, in process order, on process 0; [] on the others.

    All must call it the same number of times. Only process 0 blocks. Uses no device collective.

    Raises:
      PeerLost: on process 0, another process failed.
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
    """A value that process 0 makes at its first call with `name`; the same on all processes.

    Unlike `broadcast_from_writer`, processes may call it at different times and any number of
    times.

    Args:
      name: key of the value, without slashes.
      make: computes the value; called on process 0 only.

    Raises:
      PeerLost: process 0 failed.
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
    """Whether this process has the lowest index of those with the same `name`; all must call it."""
    if not is_multiprocess():
        return True
    names = multihost_utils.process_allgather(np.array(zlib.crc32(name.encode()), np.uint32))
    return int(np.argmax(names == names[jax.process_index()])) == jax.process_index()


def true_on_all(here: bool) -> bool:
    """Logical AND over all processes; all must call it."""
    if not is_multiprocess():
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).all())


def is_multiprocess() -> bool:
    """Whether the run has more than one process; does not initialize devices."""
    return jax.distributed.is_initialized() and process_count() > 1


def is_writer() -> bool:
    """Whether this is process 0, which writes everything not sharded: files, log, progress bar."""
    return jax.process_index() == 0


@contextlib.contextmanager
def shutdown_together(orderly: Container[int], silence: float) -> Iterator[None]:
    """Ends a multi-process run without waiting for peers that never arrive.

    A failing process (or one that waits for people) publishes why and exits at once; the others
    raise it at their next `barrier`. The runtime ends processes that wait elsewhere, within the
    heartbeat timeout.

    Args:
      orderly: exit codes that all processes end with at the same point.
      silence: heartbeat timeout in seconds, as passed to `initialize`.
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
                # A peer may have died inside a collective; then the runtime ends this process too.
                _publish_failure(key_value_store(), CRASHED, _first_line(error))
                sys.stderr.flush()
                time.sleep(2.0 * silence)
            exit_now(CRASHED, _first_line(error))
        raise
    if is_multiprocess():
        _shutdown()


def _shutdown() -> None:
    """Shuts down when all processes end with the same code."""
    try:
        barrier("the end")
    except PeerLost as lost:
        print(f"error: {lost}", file=sys.stderr)
        exit_now(lost.code, str(lost))
    jax.distributed.shutdown()


def exit_now(code: int, sentence: str, *, stopped: bool = False) -> NoReturn:
    """Exits at once, without waiting for threads, and publishes why.

    Args:
      code: exit code.
      sentence: message that the other processes show.
      stopped: the run was asked to stop; otherwise the others report a failure.
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
    """Raises the failure published by another process, if any.

    Args:
      client: the key-value store.

    Raises:
      PeerLost: another process failed.
      Stopped, WaitingForPeople: another process ended with it.
    """
    for key, text in client.key_value_dir_get(f"{KEYS}/failed/"):
        failure, index = json.loads(text), int(key.rpartition("/")[2])
        if failure["code"] == WAITING:
            raise WaitingForPeople(failure["sentence"])
        if failure["stopped"]:
            raise Stopped(failure["sentence"], alone=True)
        who = names_of([index], jax.process_count(), dict(enumerate(_hosts(client))))
        raise PeerLost(f"{who} failed: {failure['sentence']}", failure["code"])


def _hosts(client: Any) -> list[str]:
    return json.loads(client.blocking_key_value_get(f"{KEYS}/hosts", 10_000))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
