"""Compiled programs kept on disk, so that a run started again does not compile again."""

from __future__ import annotations

import hashlib
import pathlib
import platform

import jax

DEFAULT_FOLDER = "~/.cache/onereward_jax/compiled"

CPU_FEATURES = pathlib.Path("/proc/cpuinfo")


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
    path = pathlib.Path(folder).expanduser() / _instruction_set()
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
