"""Gradient accumulation over microbatches: the same sums with less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from onereward_jax.parallel import join_microbatches, split_microbatches


def sum_over_microbatches(function: Callable[[Any], Any], batch: Any, microbatches: int) -> Any:
    """Σ function(microbatch) over the microbatches of `batch`, with `lax.scan`.

    Equal to function(batch) if `function` sums over samples (does not average).

    Args:
      function: microbatch -> pytree of float32 sums.
      batch: pytree of arrays [b, ...].
      microbatches: number of microbatches; 1 calls `function` directly.
    """
    if microbatches == 1:
        return function(batch)
    return sum_over_parts(function, split_microbatches(batch, microbatches))


def sum_over_parts(function: Callable[[Any], Any], parts: Any) -> Any:
    """Σ function(part) over the first axis of the arrays of `parts`, with `lax.scan`."""

    def step(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(step, zeros, parts)[0]


def map_microbatches(function: Callable[[Any], Any], batch: Any, microbatches: int) -> Any:
    """The rows of function(batch), computed a microbatch at a time, with `lax.map`.

    Args:
      function: pytree of arrays [n, ...] -> pytree of arrays [n, ...], row by row.
      batch: pytree of arrays [b, ...].
      microbatches: number of microbatches; 1 calls `function` directly.
    """
    if microbatches == 1:
        return function(batch)
    parts = jax.lax.map(function, split_microbatches(batch, microbatches))
    return join_microbatches(parts)
