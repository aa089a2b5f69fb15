"""Weights in the dtype they are computed with, converted once a step."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree


def cast_params(params: PyTree, dtype: Any) -> PyTree:
    """`params` with all kernels in `dtype`.

    Layers convert their kernels before use anyway, so results are the same; but converted here,
    they are converted once instead of in each of some hundred forwards of a rollout, and half as
    many bytes travel when sharded weights are gathered. Norms and biases stay in float32: some
    layers compute with them in that precision.
    """

    def convert(path: tuple, leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if getattr(path[-1], "key", None) == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(convert, params)
