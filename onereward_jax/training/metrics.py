"""Metrics as numerators and denominators, which add up over microbatches and steps.

A mean of means is wrong if the parts differ in size (a batch without removal tasks); a sum of
numerators over a sum of denominators is always right.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, TASKS


class Mean(NamedTuple):
    """total / count: one number, one per task, or a table of task x dimension.

    Attributes:
      total: numerator.
      count: denominator; 0 if nothing was measured.
    """

    total: Float32[Array, "*table"]
    count: Float32[Array, "*table"]


Metrics = dict[str, Mean]


def mean_of(values: Float[Array, "*shape"]) -> Mean:
    """The mean over all elements."""
    return Mean(jnp.sum(values, dtype=jnp.float32), jnp.float32(values.size))


def once(value: Float[Array, ""] | Int[Array, ""]) -> Mean:
    """A quantity with one value per step."""
    return Mean(value.astype(jnp.float32), jnp.float32(1.0))


def by_task(values: Float[Array, "b e"], task: Int[Array, "b"], mask: Bool[Array, "b e"]) -> Mean:
    """Means per task and dimension.

    Args:
      values: one per sample and dimension, in the order of `tasks.DIMENSIONS`.
      task: index into `tasks.TASKS`.
      mask: False at padded dimensions.

    Returns:
      Tables [task, dimension].
    """
    membership = jax.nn.one_hot(task, len(TASKS), dtype=jnp.float32)

    def table(rows: Float32[Array, "b e"]) -> Float32[Array, "t e"]:
        # Full precision: by default, TPUs round the inputs to bfloat16.
        return jnp.einsum("bt,be->te", membership, rows, precision="highest")

    kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return Mean(table(kept), table(mask.astype(jnp.float32)))


def of_task(values: Float[Array, "b"], task: Int[Array, "b"]) -> Mean:
    """Means per task: [task]. Arguments as in `by_task`."""
    membership = jax.nn.one_hot(task, len(TASKS), dtype=jnp.float32)
    total = jnp.einsum("bt,b->t", membership, values.astype(jnp.float32), precision="highest")
    return Mean(total, jnp.sum(membership, axis=0))


def add(first: Metrics, second: Metrics) -> Metrics:
    """The combined metrics of both parts."""
    return jax.tree.map(jnp.add, first, second)


def scalars(metrics: Metrics) -> dict[str, float]:
    """Metrics as numbers by name, on the host; blocks until the device is done.

    A table is flattened to "reward/fill/structure", with the mean over all as "reward"; values per
    task to "anchor/fill". Values that were not measured are omitted.
    """
    named = {}
    for name, (total, count) in jax.device_get(metrics).items():
        if np.sum(count) > 0:
            named[name] = float(np.sum(total) / np.sum(count))
        if np.ndim(total) == 1:
            rows = zip(TASKS, total, count, strict=True)
            named |= {f"{name}/{task.value}": float(x / n) for task, x, n in rows if n > 0}
        if np.ndim(total) == 2:
            named |= {
                f"{name}/{cell}": float(total[place] / count[place])
                for cell, place in _cells()
                if count[place] > 0
            }
    return named


def _cells() -> list[tuple[str, tuple[int, int]]]:
    """Names and indices of the table cells that are in use."""
    return [
        (f"{task.value}/{dimension.value}", (row, column))
        for row, task in enumerate(TASKS)
        for column, dimension in enumerate(DIMENSIONS[task][:MAX_DIMENSIONS])
    ]
