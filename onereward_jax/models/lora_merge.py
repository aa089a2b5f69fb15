"""A low-rank adapter merged into the kernels of its base, W + A B, and taken out again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.models.lora import FACTOR_A, Factors, product, scale_factors
from onereward_jax.parallel import mesh_jit


def merge(params: PyTree, factors: Factors) -> PyTree:
    """Parameters with A B added to the kernels, in float32; each kernel keeps its dtype.

    The given parameters stay: they are what to go back to. Where they are gone, `unmerge`.

    Raises:
      KeyError: a module of `factors` is not in `params`.
    """
    flat, found = flatten_dict(params), flatten_dict(factors)
    for *module, name in found:
        if name == FACTOR_A:
            kernel = flat[*module, "kernel"]
            wide = kernel.astype(jnp.float32) + product(found, tuple(module))
            flat[*module, "kernel"] = wide.astype(kernel.dtype)
    return unflatten_dict(flat)


def unmerge(params: PyTree, factors: Factors) -> PyTree:
    """The parameters before `merge`, up to the rounding of the kernels' dtype."""
    return merge(params, scale_factors(factors, -1.0))


def merge_into(params: PyTree, factors: Factors, mesh: Mesh) -> PyTree:
    """`merge` on `mesh`; `params` is donated."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    # Donated: callers that need the base again reload it from its folder.
    return mesh_jit(merge, mesh, donate_argnums=0, out_shardings=shardings)(params, factors)
