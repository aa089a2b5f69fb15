"""Casts master weights to the compute dtype, once per step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def cast_params(params: PyTree, dtype: Any) -> PyTree:
    """`params` with all kernels cast to `dtype`, except for quantised ones.

    Layers cast their kernels before use anyway, so results do not change. Casting here happens once
    instead of in each of some hundred forward passes of a rollout, and halves the bytes of FSDP
    all-gathers. Norms and biases stay in float32, in which some layers compute with them.
    """

    def convert(path: tuple, leaf: jax.Array) -> jax.Array:
        wide = getattr(path[-1], "key", None) == "kernel" and leaf.dtype != jnp.int8
        return leaf.astype(dtype) if wide else leaf

    return jax.tree_util.tree_map_with_path(convert, params)
