"""Compiled programs kept on disk, so that a run started again does not compile again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import platform
import statistics

import jax

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.user_path import user_path

DEFAULT_FOLDER = "~/.cache/onereward_jax/compiled"

CPU_FEATURES = pathlib.Path("/proc/cpuinfo")

FIRST_SECONDS = "first_seconds.json"
"""In the cache's folder: program -> seconds until it had run once, of the last `KEPT` times."""

KEPT = 5


def use_compilation_cache(folder: str = DEFAULT_FOLDER) -> str | None:
    """Has JAX keep what it compiles; to be called before anything is compiled.

    JAX's own settings come first: JAX_COMPILATION_CACHE_DIR names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false ends all keeping. Entries belong to a program, a compiler and
    a kind of device; those for CPUs also to a set of instructions, which the name of a sub-folder
    stands for, since the home of several machines may be one and the same. JAX keeps what took a
    second or more to compile (JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS).

    Args:
      folder: where, if JAX has not been told; "" for nowhere.

    Returns:
      None, or why there is no cache: a run goes on without.
    """
    if not folder or jax.config.jax_compilation_cache_dir is not None:
        return None
    path = user_path(folder) / _instruction_set()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"compiled programs are not kept: {error}"
    jax.config.update("jax_compilation_cache_dir", str(path))
    return None


def _instruction_set() -> str:
    """A name for what the CPU of this machine understands."""
    told = platform.processor()
    if CPU_FEATURES.exists():
        lines = CPU_FEATURES.read_text(errors="replace").splitlines()
        told = next((one for one in lines if one.startswith(("flags", "Features"))), told)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{platform.machine()}-{digest}"


def usual_first_seconds(program: str) -> float | None:
    """The median of what `add_first_seconds` was told of a program; None where it is not known."""
    seconds = _first_seconds().get(_key(program))
    return statistics.median(seconds) if seconds else None


def add_first_seconds(program: str, seconds: float) -> None:
    """Remembers beside the compiled programs what it took until a program had run once.

    Args:
      program: names it, such as "rl, mini/models/editor"; the kind of device is added.
      seconds: of compiling, or of reading the cache, and of the first run.
    """
    folder = _folder()
    if folder is None:
        return
    known = _first_seconds()
    known[_key(program)] = [*known.get(_key(program), []), round(seconds, 1)][-KEPT:]
    with contextlib.suppress(OSError), atomic_file(folder / FIRST_SECONDS) as draft:
        draft.write_text(json.dumps(known, indent=1))


def _folder() -> pathlib.Path | None:
    """The cache's folder, if it is one of this machine."""
    folder = jax.config.jax_compilation_cache_dir
    return pathlib.Path(folder) if folder and pathlib.Path(folder).is_dir() else None


def _key(program: str) -> str:
    return f"{program}, {jax.devices()[0].device_kind}"


def _first_seconds() -> dict[str, list[float]]:
    folder = _folder()
    try:
        return json.loads((folder / FIRST_SECONDS).read_text()) if folder else {}
    except (OSError, ValueError):
        return {}
