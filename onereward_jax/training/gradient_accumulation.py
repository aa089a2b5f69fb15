"""Gradients of a batch in parts: the same sums, a fraction of the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from onereward_jax.parallel import split_microbatches


def sum_over_microbatches(function: Callable[[Any], Any], batch: Any, microbatches: int) -> Any:
    """Σ function(part) over the parts of `batch`, by `lax.scan`.

    Equal to function(batch) whenever `function` sums over samples (and does not average).

    Args:
      function: part -> tree of float32 sums; called with trees shaped like `batch`.
      batch: tree of arrays with samples on the first axis.
      microbatches: number of parts; 1 calls `function` directly.
    """
    if microbatches == 1:
        return function(batch)
    parts = split_microbatches(batch, microbatches)

    def step(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(step, zeros, parts)[0]
