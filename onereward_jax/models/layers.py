"""Layers with logical axes of activations and parameters, shared by all networks."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from onereward_jax.parallel import RULES

CHANNELS = ("batch", "sequence", "act_embed")
HIDDEN = ("batch", "sequence", "act_mlp")
HEADS = ("batch", "sequence", "act_heads", None)


def constrain(x: Float[Array, "..."], axes: tuple[str | None, ...]) -> Float[Array, "..."]:
    """Constrains the sharding of `x` to the logical axes `axes`; no effect without a mesh."""
    return nn.with_logical_constraint(x, axes, rules=RULES)


def normal(stddev: float, axes: tuple[str | None, ...]) -> Initializer:
    """Gaussian initializer of a parameter with the logical axes `axes`."""
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), axes)


def zeros(axes: tuple[str, ...]) -> Initializer:
    """Like `normal`, but zeros."""
    return nn.with_logical_partitioning(nn.initializers.zeros, axes)


def ones(axes: tuple[str, ...]) -> Initializer:
    """Like `normal`, but ones."""
    return nn.with_logical_partitioning(nn.initializers.ones, axes)


def dense(
    features: int, axes: tuple[str, str], stddev: float, name: str, **options: Any
) -> nn.Dense:
    """A linear layer whose kernel [in, out] has the logical axes `axes`; options: `nn.Dense`."""
    kernel_init, bias_init = normal(stddev, axes), zeros(axes[1:])
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name, **options)


def embed(
    rows: int, features: int, axes: tuple[str, str], stddev: float, name: str, **options: Any
) -> nn.Embed:
    """An embedding [rows, features] with the logical axes `axes`; options: `nn.Embed`."""
    return nn.Embed(rows, features, embedding_init=normal(stddev, axes), name=name, **options)
