"""Default dtype, and padding of batches to the mesh, for editor and judge."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from onereward_jax.parallel.batch import BATCH_AXES


def dtype_or_default(dtype: Any = None) -> np.dtype:
    """`dtype`; None: float32 on CPU, bfloat16 on TPU and GPU."""
    if dtype is not None:
        return jnp.dtype(dtype)
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


def pad_batch(samples: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Pads `samples` with the last one to a multiple of the size of the batch axes."""
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    missing = -len(samples) % parts
    return np.concatenate([samples, np.repeat(samples[-1:], missing, axis=0)])
