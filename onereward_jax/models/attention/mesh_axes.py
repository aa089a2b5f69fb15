"""Mesh axes of queries, keys and values, for kernels under `shard_map`."""

from __future__ import annotations

import math

import jax
from jax.sharding import AbstractMesh

from onereward_jax.parallel import RULES

Axes = tuple[str, ...] | str | None


def batch_and_head_axes(batch: int, kv_heads: int) -> tuple[Axes, Axes]:
    """Mesh axes of samples and heads by the logical axis rules; None where they do not divide."""
    mesh, table = jax.sharding.get_abstract_mesh(), dict(RULES)
    return _dividing(batch, table["batch"], mesh), _dividing(kv_heads, table["act_heads"], mesh)


def in_shard_map() -> bool:
    """Whether the caller is already traced for one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.are_all_axes_manual


def _dividing(size: int, axes: tuple[str, ...] | str, mesh: AbstractMesh) -> Axes:
    """`axes` if the mesh has them and their size divides `size`, else None."""
    names = (axes,) if isinstance(axes, str) else axes
    if not set(names) <= set(mesh.axis_names):
        return None
    return None if size % math.prod(mesh.shape[name] for name in names) else axes
