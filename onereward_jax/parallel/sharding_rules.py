"""The table of logical axis rules, and shardings made from it."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, tuple[str, ...] | str | None], ...] = (
    # activations
    ("batch", ("data", "fsdp")),
    ("sequence", None),
    ("tokens", "context"),
    ("act_embed", None),
    ("act_heads", "tensor"),
    ("act_mlp", "tensor"),
    ("height", ("tensor", "context")),
    # parameters
    ("layers", None),
    ("embed", ("fsdp", "context")),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("conv_in", None),
    ("conv_out", "fsdp"),
    ("norm", None),
)


def logical_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Shardings of a (boxed) abstract parameter tree by `RULES`, as an unboxed tree.

    Mesh axes whose sizes do not divide the dimension are dropped for that array, the last one
    first: small odd dimensions (an output convolution with 3 channels) are replicated instead of
    failing.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), RULES)

    def fit(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> NamedSharding:
        axes = []
        for size, axis in zip(leaf.shape, tuple(spec) + (None,) * len(leaf.shape)):
            names = (axis,) if isinstance(axis, str) else tuple(axis or ())
            while size % math.prod(mesh.shape[name] for name in names):
                names = names[:-1]
            axes.append(names if len(names) > 1 else names[0] if names else None)
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(fit, nn.meta.unbox(abstract), specs)


def abstract_arrays(abstract: Any, mesh: Mesh) -> Any:
    """A (boxed) abstract parameter tree as unboxed `jax.ShapeDtypeStruct`s with shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.meta.unbox(abstract),
        logical_shardings(abstract, mesh),
    )
