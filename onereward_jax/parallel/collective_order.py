"""The order of collectives, where CPU processes make a run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping

import jax

FLAG = "xla_cpu_enable_concurrency_optimized_scheduler"

ACCELERATORS = ("libtpu", "jax_plugins")
"""Packages that bring JAX another platform than the CPU: the extras `tpu` and `cuda`."""


def fix_collective_order(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has XLA's CPU compiler leave collectives less freedom; to be called before the first device.

    Gloo, which connects CPU processes, pairs the messages of a group of devices by their order
    alone. XLA's CPU runtime starts what follows a loop while collectives of the loop's body still
    run, unless it needs their result: a gather of weights that come after a scan of layers
    overtakes those inside it, at another moment in each process. A process then receives what was
    sent for another collective, and aborts: "Received data size doesn't match expected size".

    The scheduler that saves memory leaves less that is independent, and RL on data 2 x fsdp 2 over
    two processes ran where it never did. It is no cure: meshes with `data` and `fsdp` beside each
    other may still abort on CPU processes; those with one of them, and `tensor`, have not been seen
    to. XLA reads the flag from the environment only: as a compiler option of `jax.jit` it has no
    effect.

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
