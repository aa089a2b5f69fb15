"""What runs of several processes need of jax and jax has no public name for; the only such place.

In jax 0.10.2 to 0.12.0 `jax.distributed` starts, ends and tells whether it is started, no more.
`jax.experimental.multihost_utils` talks by collectives, so devices have to be there and free, and a
peer that has died is waited for. `jax.process_count` asks the devices, too.
"""

from __future__ import annotations

from typing import Any

from jax._src import distributed
from jax._src.clusters import ClusterEnv


def detect_cluster(seconds: float) -> tuple[str | None, int | None, int | None]:
    """Address of process 0, count of processes and number of this one on Cloud TPU, GKE or Slurm.

    `jax.distributed.initialize` finds the same, but only to connect at once.

    Args:
      seconds: to wait for a name server to know process 0.

    Returns:
      None three times outside a cluster.

    Raises:
      OSError, RuntimeError: a metadata or name server does not answer.
    """
    return ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, round(seconds)
    )[:3]


def process_count() -> int:
    """How many processes the runtime was last started with."""
    return distributed.global_state.num_processes


def key_value_store() -> Any:
    """The runtime's, that all processes read and write; it has to be started."""
    return distributed.global_state.client
