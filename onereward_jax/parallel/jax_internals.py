"""The only uses of private jax names, all for multi-process runs.

In jax 0.10.2 to 0.12.0, `jax.distributed` only has initialize, shutdown and is_initialized.
`jax.experimental.multihost_utils` uses device collectives, so it needs free devices and waits for
dead peers. `jax.process_count` initializes devices.
"""

from __future__ import annotations

from typing import Any

from jax._src import distributed
from jax._src.clusters import ClusterEnv


def detect_cluster(seconds: float) -> tuple[str | None, int | None, int | None]:
    """Coordinator address, process count and process index on Cloud TPU, GKE or Slurm.

    `jax.distributed.initialize` detects the same, but connects at once.

    Args:
      seconds: to wait until a name server resolves process 0.

    Returns:
      (None, None, None) outside a cluster.

    Raises:
      OSError, RuntimeError: a metadata or name server does not answer.
    """
    return ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, round(seconds)
    )[:3]


def process_count() -> int:
    """Number of processes that `jax.distributed` was initialized with."""
    return distributed.global_state.num_processes


def key_value_store() -> Any:
    """The distributed runtime's key-value store, shared by all processes.

    `jax.distributed` must be initialized.
    """
    return distributed.global_state.client
