"""The table of logical axis rules, and shardings made from it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, tuple[str, ...] | str | None], ...] = (
    # activations
    ("batch", ("data", "fsdp")),
    ("sequence", None),
    ("act_embed", None),
    ("act_heads", "tensor"),
    ("act_mlp", "tensor"),
    ("height", "tensor"),
    # parameters
    ("layers", None),
    ("embed", "fsdp"),
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

    A mesh axis whose size does not divide the dimension is dropped for that array: small odd
    dimensions (an output convolution with 3 channels) are replicated instead of failing.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), RULES)

    def fit(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> NamedSharding:
        axes = []
        for size, axis in zip(leaf.shape, tuple(spec) + (None,) * len(leaf.shape)):
            names = (axis,) if isinstance(axis, str) else tuple(axis or ())
            parts = 1
            for name in names:
                parts *= mesh.shape[name]
            axes.append(axis if size % parts == 0 else None)
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(fit, nn.meta.unbox(abstract), specs)


def abstract_arrays(abstract: Any, mesh: Mesh) -> Any:
    """A (boxed) abstract parameter tree as unboxed `jax.ShapeDtypeStruct`s with shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.meta.unbox(abstract),
        logical_shardings(abstract, mesh),
    )
