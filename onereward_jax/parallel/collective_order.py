"""The same order of collectives in every process, where CPU processes make a run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping

import jax

FLAG = "xla_cpu_enable_concurrency_optimized_scheduler"

ACCELERATORS = ("libtpu", "jax_plugins")
"""Packages that bring JAX another platform than the CPU: the extras `tpu` and `cuda`."""


def fix_collective_order(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has XLA's CPU compiler keep collectives in one order; to be called before the first device.

    Gloo, which connects CPU processes, pairs messages by their order alone. XLA's default scheduler
    lets independent collectives start in any order, another one in each process. Over a mesh with
    two axes of more than one device (data 2 x fsdp 2) a process then receives what was sent for
    another collective, and aborts: "Received data size doesn't match expected size". XLA reads this
    flag from the environment only: as a compiler option of `jax.jit` it has no effect.

    Args:
      environment: where XLA_FLAGS is read and extended, unless it names the flag already, or the
        run is not on CPUs.
    """
    flags = environment.get("XLA_FLAGS", "")
    if FLAG not in flags and _on_cpu():
        environment["XLA_FLAGS"] = f"{flags} --{FLAG}=false".strip()


def _on_cpu() -> bool:
    """Whether JAX will choose the CPU. Asking JAX itself would start its devices."""
    if named := jax.config.jax_platforms:
        return named.split(",")[0] == "cpu"
    return not any(importlib.util.find_spec(package) for package in ACCELERATORS)
